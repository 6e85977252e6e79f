"""The server's end of the loader's Download button: what is missing, get it, stop.

    GET  /dicetalk/download           what is missing and how far the download is
    POST /dicetalk/download           start; 409 while one is running
    POST /dicetalk/download/cancel    stop; what is fetched is kept

And the example workflows under the names that they had before they were numbered.

Nothing in a request chooses what is fetched, from where, or to which place: a POST takes the JSON object {} and nothing
else. ComfyUI refuses pages of other sites only on a loopback address and without --enable-cors-header, so that these
routes look at the request's origin themselves.
"""

import asyncio
import json
import logging
import threading
from pathlib import Path
from urllib.parse import urlsplit

import folder_paths
from aiohttp import web

from ..dicetalk.checkpoints.download import fetch, left_to_fetch, missing_files, plan_download
from ..dicetalk.checkpoints.finding import PARTS
from ..dicetalk.errors import InputError
from ..dicetalk.files import require_space
from .loader import checkpoint_roots, checkpoints, svd_file
from .words import in_comfyui

GROUPS = ("dice-talk", "whisper", "emotions")
"""What the loader loads. Stable Video Diffusion is the business of ComfyUI's own loaders."""

_LONGEST_BODY = 1024

OLD_NAMES = {
    "quick_start": "1 Quick start",
    "mixed_emotion": "2 Mixed emotion",
    "emotion_timeline": "3 Emotion timeline",
    "emotion_from_clip": "4 Emotion from a clip",
    "paste_back": "5 Back into the picture",
    "long_audio": "6 Long speech",
    "frames_25_fps": "7 Frame interpolation",
    "generated_portrait": "8 Generated portrait",
    "custom_sampling": "9 Custom sampling",
}
"""File names that the example workflows had → those that they have."""


class Download:
    """The one download of this server.

    Attributes:
        state: "idle", "asking" (the hub, for sizes), "fetching" or "stopping".
        file, done, total: the file being fetched, and bytes of all files together.
        error: why the last download ended early, in one sentence; None if it did not.
    """

    def __init__(self):
        self.state, self.file, self.done, self.total, self.error = "idle", None, 0, 0, None
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def start(self, folder):
        """Begin to fetch what the checkpoint in `folder` lacks; False if a download is running."""
        with self._lock:
            if self.state != "idle":
                return False
            self.state, self.file, self.done, self.total, self.error = "asking", None, 0, 0, None
            self._stop.clear()
        threading.Thread(target=self._run, args=(folder,), name="DICE-Talk download", daemon=True).start()
        return True

    def cancel(self):
        """Stop at the next request, or the next piece that comes in; where none does, after 10 s without an answer."""
        with self._lock:
            if self.state != "idle":
                self.state = "stopping"
                self._stop.set()

    def _run(self, folder):
        error = None
        try:
            self._fetch_all(folder)
        except Exception as problem:
            if self._stop.is_set():  # whatever came of it
                pass
            elif isinstance(problem, InputError):
                error = in_comfyui(str(problem))
            else:
                logging.exception("DICE-Talk: the download failed")
                error = f"The download failed ({type(problem).__name__}: {problem}); see ComfyUI's log."
        with self._lock:
            self.state, self.file, self.error = "idle", None, error

    def _fetch_all(self, folder):
        files, refusals = plan_download(folder, GROUPS, on_request=self._check)
        self.total = sum(file.size for file in files)
        require_space(folder, left_to_fetch(files))
        before = 0
        for file in files:
            self._step(before, file)
            fetch(file, lambda count, before=before, file=file: self._step(before + count, file))
            before += file.size
        self.done = before
        if refusals:
            raise InputError(" ".join(refusals.values()))

    def _check(self):
        if self._stop.is_set():
            raise _Stopped

    def _step(self, done, file):
        with self._lock:
            self._check()
            self.state, self.file, self.done = "fetching", file.target.name, done


class _Stopped(Exception):
    pass


def state(download):
    """What the node shows, as a JSON value."""
    found = checkpoints()
    folder, missing = target(found)
    return {
        "complete": [name for name, checkpoint in found.items() if not lacking(checkpoint)],
        "miniatures": [name for name, checkpoint in found.items() if checkpoint.miniature],
        "folder": str(folder),
        "missing": [path.relative_to(folder).as_posix() for names in missing.values() for path in names.values()],
        "svd": svd_file() is not None,
        "without_svd": [name for name, checkpoint in found.items() if checkpoint.svd is None],
        "svd_folder": folder_paths.get_folder_paths("checkpoints")[0],
        "error": download.error if missing else None,
        **{name: getattr(download, name) for name in ("state", "file", "done", "total")},
    }


def target(found):
    """The folder that a download completes, and what it lacks: the first checkpoint that lacks something.

    The untrained one and the miniature have other sizes, and do not count. Without any that counts, a new one in
    ComfyUI's models/dicetalk.
    """
    trained = [checkpoint for checkpoint in found.values() if not (checkpoint.untrained or checkpoint.miniature)]
    for checkpoint in trained:
        if missing := lacking(checkpoint):
            return checkpoint.root, missing
    folder = trained[0].root if trained else checkpoint_roots()[0]
    return folder, {} if trained else missing_files(folder, GROUPS)


def lacking(checkpoint):
    """What a checkpoint lacks, in the form of `missing_files`; folders that it shares with others count as there."""
    shared = [kind for kind in ("whisper", "emotions") if getattr(checkpoint, kind)]
    shared = [kind for kind in shared if getattr(checkpoint, kind).parent != checkpoint.root]
    if all(part in checkpoint.files for part in PARTS):
        shared.append("dice-talk")
    return missing_files(checkpoint.root, [group for group in GROUPS if group not in shared])


def register_routes():
    """Add the routes to ComfyUI's server, if there is one."""
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)
    if server is None:
        return
    download = Download()
    _serve_old_names(server)

    @server.routes.get("/dicetalk/download")
    async def tell(request):
        _refuse_foreign(request)
        return await _told(download)

    @server.routes.post("/dicetalk/download")
    async def start(request):
        await _require_empty(request)
        folder, missing = await asyncio.to_thread(lambda: target(checkpoints()))
        if missing and not download.start(folder):
            raise _refusal(web.HTTPConflict, "A download is running already.")
        return await _told(download, 202 if missing else 200)

    @server.routes.post("/dicetalk/download/cancel")
    async def cancel(request):
        await _require_empty(request)
        download.cancel()
        return await _told(download)


def _serve_old_names(server):
    """Give an example workflow for the name that links to it may still have."""
    pack = Path(__file__).parents[1]  # not resolved: ComfyUI's address has the name of the folder, which may be a link
    for old, title in OLD_NAMES.items():

        async def old_name(request, title=title):
            return web.FileResponse(pack / "example_workflows" / f"{title}.json")

        server.routes.get(f"/workflow_templates/{pack.name}/{old}.json")(old_name)


async def _told(download, status=200):
    # in a thread, as it looks through folders, which may be on a network
    return web.json_response(await asyncio.to_thread(state, download), status=status)


def _refuse_foreign(request):
    """403 for a page of another site. Browsers say where a request comes from; programs that are none say nothing."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    foreign = site not in ("same-origin", "none") if site else origin and urlsplit(origin).netloc != request.host
    if foreign:
        raise _refusal(web.HTTPForbidden, "Only ComfyUI's own page may ask for this.")


async def _require_empty(request):
    _refuse_foreign(request)
    if request.content_type != "application/json":
        raise _refusal(web.HTTPUnsupportedMediaType, "The body must be JSON, with Content-Type application/json.")
    if (await request.content.read(_LONGEST_BODY)).strip() != b"{}":
        raise _refusal(web.HTTPBadRequest, "This takes no settings: send the JSON object {}.")


def _refusal(kind, problem):
    return kind(text=json.dumps({"error": problem}), content_type="application/json")
