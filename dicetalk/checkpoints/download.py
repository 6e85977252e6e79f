"""Fetch what a checkpoint lacks, from the places where its owners publish it. Nothing that is fetched is run.

The parts, Whisper and Stable Video Diffusion come from the Hugging Face hub, through `huggingface_hub`; the emotion
priors from the authors' repository on GitHub, at a fixed commit. Every file's size and checksum are compared with what
the hub, or this module, says. An interrupted download resumes where it stopped.
"""

import functools
import hashlib
import http.client
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..files import readable_size, require_space, sha256_of, written_beside
from .finding import comfyui_models_folders
from .svd_files import find_svd_file

HUB_FILES = {
    "dice-talk": (
        "EEEELY/DICE-Talk",
        {f"{part}.pth": f"DICE-Talk/{part}.pth" for part in ("unet", "pose_guider", "audio_linear", "emo_model")},
    ),
    "whisper": (
        "openai/whisper-tiny",
        {name: f"whisper-tiny/{name}" for name in ("config.json", "model.safetensors")},
    ),
    "svd": (
        "stabilityai/stable-video-diffusion-img2vid-xt",
        {
            name: f"stable-video-diffusion-img2vid-xt/{name}"
            for name in (
                "vae/config.json",
                "vae/diffusion_pytorch_model.fp16.safetensors",
                "image_encoder/config.json",
                "image_encoder/model.fp16.safetensors",
                "feature_extractor/preprocessor_config.json",
                "scheduler/scheduler_config.json",
            )
        },
    ),
}
"""Group → repository on the Hugging Face hub, and its files' names → where they belong in a checkpoint."""

PRIORS_URL = (
    "https://raw.githubusercontent.com/toto222/DICE-Talk/a8a92b164a3f552414d06a463a2b2e8eeb92db0b/examples/emo/"
)
PRIOR_SIZE = 1403
PRIOR_SHA256 = {
    "angry.npy": "ba5a185d63a31a0c0a3eacac79e843985ff05c4605199d459d00377719b968e3",
    "contempt.npy": "0cb2b27282f1e63149d24415ebefaf59d8ff7c567971ed809588ee00f30cb988",
    "disgusted.npy": "097068dd93b0c5fc955740355847c8b23c2ab752abb67ac880b5f60a2048fb0e",
    "fear.npy": "0767fa00bbea51406bfc92962b16b7cb003954b353f5b26ab7a267835a43b5a2",
    "happy.npy": "ce84e8456729a227cb2d629b4c37c4de274800a427aa5f35b10e0fda79fec549",
    "neutral.npy": "2cb35601ae8de98aba9293187b45f34c9cfec5f5bf3efd41d5948bc229cae21e",
    "sad.npy": "9d323ad9b1c42a1c1ed8a8f05e6c0b7344be20e86ed48a855c657d7812545a98",
    "surprised.npy": "0aaae02af23b5874e8407d93cf7fe89a44077efb4a7159f91e51d469c97f400e",
}
GROUPS = (*HUB_FILES, "emotions")
WORDS = "words"
"""The group of Whisper's tokenizer, which reads the words of a script: for those who ask for it."""
_ON_HUB = {**HUB_FILES, WORDS: ("openai/whisper-tiny", {"tokenizer.json": "whisper-tiny/tokenizer.json"})}

_TIMEOUT = 10  # seconds without an answer, as huggingface_hub waits for files
_TRIES = 5  # in a row that give nothing new
_PAUSE = 1  # seconds between two tries
_PIECE = 8192  # bytes, of which a stall may cost one, with huggingface_hub before 1.0; later ones hand on what comes
_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}|git:[0-9a-f]{40}")


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch.

    Attributes:
        target: where it will be.
        source: the repository, for people.
        url: where it is.
        size: in bytes.
        checksum: "sha256:…" of its content, or "git:…", its object id in git.
        on_hub: whether it comes from the Hugging Face hub (with the user's token, if there is one).
    """

    target: Path
    source: str
    url: str
    size: int
    checksum: str
    on_hub: bool = True


def missing_files(output, groups=GROUPS) -> dict[str, dict[str, Path]]:
    """What a checkpoint lacks; nobody is asked for it.

    Args:
        output: the checkpoint folder; need not exist.
        groups: of `GROUPS`, or `WORDS`.

    Returns:
        Group → name in its repository → where the file belongs, without what is there as published or converted;
        svd_xt.safetensors, as ComfyUI has it, counts as Stable Video Diffusion.
    """
    output = Path(output)
    missing = {}
    for group in groups:
        names = _ON_HUB[group][1] if group in _ON_HUB else {name: f"emotions/{name}" for name in PRIOR_SHA256}
        if group == "whisper" and all(_is_there(output.parent / "sonic", place) for place in names.values()):
            continue
        if group == "svd" and find_svd_file(svd_places(output)):
            continue
        lacking = {name: output / place for name, place in names.items() if not _is_there(output, place)}
        if lacking:
            missing[group] = lacking
    return missing


def svd_places(output) -> list[Path]:
    """The folders where svd_xt.safetensors, which carries the same, is looked for."""
    return [Path(output), Path(output).parent, *(models / "checkpoints" for models in comfyui_models_folders())]


def plan_download(output, groups=GROUPS, endpoint=None, on_request=None) -> tuple[list[RemoteFile], dict[str, str]]:
    """What has to be fetched to complete a checkpoint.

    A file that is there, as published or as safetensors, is never fetched, and a repository is only asked when one of
    its files is missing.

    Args:
        output: the checkpoint folder; need not exist.
        groups: of `GROUPS`.
        endpoint: address of the hub, huggingface_hub's own when None.
        on_request: called before each request; what it raises ends the planning.

    Returns:
        The files, and repository → what to do about it, for those that do not let this user in.

    Raises:
        InputError: a repository cannot be reached, or does not hold what it should.
    """
    files, refusals = [], {}
    for group, missing in missing_files(output, groups).items():
        if group == "emotions":
            files += _priors(missing)
            continue
        repository, _ = _ON_HUB[group]
        try:
            files += _hub_files(repository, missing, endpoint, on_request or (lambda: None))
        except _NoAccess as error:
            refusals[repository] = str(error)
    return files, refusals


def fetch(file: RemoteFile, on_bytes=None) -> None:
    """Fetch one file; it appears at its place once it is complete and right.

    Args:
        file: of `plan_download`.
        on_bytes: called with the number of its bytes that are here, with every piece that comes in and before every
            try; what it raises ends the download, which can resume there another time.

    Raises:
        InputError: no connection, no access, another size or checksum than announced (what came is removed then),
            another process is fetching the same file, or the disk is full. Run again, a file from the hub resumes where
            it stopped.
    """
    if _is_whole(file.target):
        return
    try:
        if file.on_hub:
            _fetch_from_hub(file, on_bytes)
        else:
            _fetch_small(file)
    except (urllib.error.URLError, *_network_errors()) as error:
        raise InputError(_unreachable(file.source, error)) from None


def _is_there(output, place):
    """Whether a checkpoint has a file, as published or converted; parts may also be in the folder itself."""
    targets = [output / place]
    if place.startswith("DICE-Talk/"):
        targets.append(output / targets[0].name)
    same = [
        name
        for path in targets
        for name in (path, path.with_suffix(".safetensors"), path.with_name(path.name.replace(".fp16.", ".")))
    ]
    return any(map(_is_whole, same))


def _is_whole(path):
    """Whether a file is there; what is being fetched has another name."""
    return path.is_file() and path.stat().st_size > 0


def _priors(missing):
    return [
        RemoteFile(
            target, "toto222/DICE-Talk", PRIORS_URL + name, PRIOR_SIZE, f"sha256:{PRIOR_SHA256[name]}", on_hub=False
        )
        for name, target in missing.items()
    ]


class _NoAccess(Exception):
    """What to do about a repository that does not let this user in."""


def _hub_files(repository, missing, endpoint, on_request):
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError
    from huggingface_hub.utils import hf_raise_for_status

    api = HfApi(endpoint=endpoint)
    _session()
    on_request()
    try:
        info = api.model_info(repository, files_metadata=True, timeout=_TIMEOUT)
        if info.gated:
            on_request()
            # As HfApi.auth_check asks, which waits for ever.
            with _answer(f"{api.endpoint}/api/models/{repository}/auth-check") as (answer, _):
                hf_raise_for_status(answer)
    except GatedRepoError:
        raise _NoAccess(_gate(repository)) from None
    except HfHubHTTPError as error:
        raise InputError(_refusal(repository, error)) from None
    except _network_errors() as error:
        raise InputError(_unreachable(repository, error)) from None
    found = []
    for name, target in missing.items():
        entries = [entry for entry in info.siblings if entry.rfilename == name or entry.rfilename.endswith(f"/{name}")]
        if not entries:
            raise InputError(
                f"The repository {repository} on the Hugging Face hub no longer holds {name}: "
                f"fetch it by hand and put it at {target}."
            )
        entry = min(entries, key=lambda entry: len(entry.rfilename))
        checksum = f"sha256:{entry.lfs.sha256}" if entry.lfs else f"git:{entry.blob_id}"
        if not isinstance(entry.size, int) or entry.size < 1 or not _CHECKSUM.fullmatch(checksum):
            raise InputError(
                f"The Hugging Face hub does not give the size and the checksum of {name} in {repository}, and without "
                "them it is not fetched. Start the download again later, or fetch the file by hand."
            )
        url = hf_hub_url(repository, entry.rfilename, revision=info.sha, endpoint=endpoint)
        found.append(RemoteFile(target, repository, url, entry.size, checksum))
    return found


def left_to_fetch(files) -> int:
    """How many bytes of some files are not here yet: what an interrupted download kept is not fetched again."""
    return sum(file.size - _kept(file) for file in files)


def _kept(file):
    part = _part(file)
    size = part.stat().st_size if part.is_file() and not part.is_symlink() else 0
    return size if size <= file.size else 0  # a longer one is thrown away


def _part(file):
    """Where a file of the hub is kept until it is whole; one of other content is another."""
    return file.target.with_name(f".{file.target.name}.{file.checksum.rpartition(':')[2][:12]}.part")


def _fetch_from_hub(file, on_bytes):
    file.target.parent.mkdir(parents=True, exist_ok=True)
    part = _part(file)
    with _held(part, file):
        if _is_whole(file.target):
            return
        if part.is_symlink():
            part.unlink()
        if part.exists() and part.stat().st_size > file.size:
            part.unlink()
        require_space(file.target.parent, left_to_fetch([file]))
        try:
            _complete(part, file, on_bytes or (lambda count: None))
        except _TooLong:
            part.unlink()
            raise InputError(_wrong(file, f"more than {file.size} bytes")) from None
        _check(part, file)
        with open(part, "rb+") as written:
            os.fsync(written.fileno())  # before it takes its name, so that a power cut leaves no half file under it
        os.replace(part, file.target)


@contextmanager
def _held(part, file):
    """Keep other processes off a partial file; the system lets go of it when this one ends, however it ends."""
    from filelock import FileLock, Timeout

    path = part.with_suffix(".lock")
    if path.is_symlink():
        path.unlink()
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"{file.target} is being downloaded by another process: wait until it is there, or stop that process and "
            "start the download again."
        ) from None
    except (OSError, NotImplementedError):  # a disk that knows no locks
        yield
        return
    try:
        yield
    finally:
        if not part.exists():
            with suppress(OSError):  # Windows removes it when it is released
                path.unlink()
        lock.release()


class _Cut(Exception):
    """The line was cut, or there is none; says what a person would read."""


class _TooLong(Exception):
    """A server sends more than was announced."""


def _complete(part, file, on_bytes):
    """Fetch what a partial file lacks. All that comes in is kept; after a cut it resumes there."""
    tries = 0
    with open(part, "ab") as stream:
        furthest = stream.tell()
        while (done := stream.tell()) < file.size:
            on_bytes(done)
            try:
                with closing(_pieces(file, done)) as pieces:
                    for start, piece in pieces:
                        if start < stream.tell():  # the server began at the start
                            stream.seek(start)
                            stream.truncate()
                        if start + len(piece) > file.size:
                            raise _TooLong
                        stream.write(piece)
                        on_bytes(stream.tell())
                if stream.tell() < file.size:
                    raise _Cut(_unreachable(file.source, "the answer ended early"))
            except _Cut as cut:
                tries = 0 if stream.tell() > furthest else tries + 1
                furthest = max(furthest, stream.tell())
                if tries == _TRIES:
                    raise InputError(str(cut)) from None
                time.sleep(_PAUSE)


def _pieces(file, done):
    """What a file holds from byte `done` on, as it comes in: (where it begins, bytes).

    From byte 0 on, if the server knows no ranges. (huggingface_hub's own download keeps whole pieces of 10 MB only.)
    """
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError
    from huggingface_hub.utils import hf_raise_for_status

    try:
        with _answer(file.url, {"Range": f"bytes={done}-"} if done else {}) as (answer, pieces):
            hf_raise_for_status(answer)
            start = done if answer.status_code == 206 else 0
            for piece in pieces:
                yield start, piece
                start += len(piece)
    except GatedRepoError:
        raise InputError(_gate(file.source)) from None
    except HfHubHTTPError as error:
        busy = getattr(error.response, "status_code", 0) in (408, 429, 500, 502, 503, 504)
        raise (_Cut if busy else InputError)(_refusal(file.source, error)) from None
    except (*_network_errors(), ValueError) as error:  # the latter from requests, for a redirect to no address
        raise _Cut(_unreachable(file.source, error)) from None


@contextmanager
def _answer(url, headers={}):
    """The answer to a request through huggingface_hub's session, and its bytes as they come in.

    The session sees to proxies, certificates and redirects; it takes the token off where they lead to another host.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers

    # not packed, since a range of what is packed is none of the file
    headers = {**build_hf_headers(library_name="dicetalk"), "Accept-Encoding": "identity", **headers}
    session, timeout = _session(), constants.HF_HUB_DOWNLOAD_TIMEOUT
    if callable(session.stream):  # a setting, with requests, before huggingface_hub 1.0
        with session.stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as answer:
            yield answer, answer.iter_raw()
    else:
        with session.get(url, headers=headers, timeout=timeout, stream=True) as answer:
            yield answer, answer.raw.stream(_PIECE, decode_content=False)


def _session():
    """huggingface_hub's; InputError where the environment names a proxy that its HTTP library cannot use."""
    from huggingface_hub.utils import get_session

    try:
        return get_session()
    except Exception as error:  # the library raises many kinds, ImportError for SOCKS among them
        raise InputError(_proxy_problem(str(error))) from None


def _proxies():
    """Scheme → address of a proxy, as the environment names them; urllib itself knows no ALL_PROXY."""
    found = urllib.request.getproxies()
    return {"https": found["all"], "http": found["all"], **found} if "all" in found else found


def _proxy_problem(reason):
    names = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
    named = [name for name in names if os.environ.get(name) or os.environ.get(name.lower())]
    return (
        f"The proxy that {' or '.join(named) or 'the system'} names cannot be used ({' '.join(reason.split())[:200]}). "
        "Name an http:// proxy there, take the variable away, or fetch the files by hand."
    )


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but none from https to anything else."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if req.type == "https" and not newurl.lower().startswith("https:"):
            raise urllib.error.URLError(f"{req.host} redirects to an address without https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetch_small(file):
    proxies = _proxies()
    if proxies.get("https", "http:").partition(":")[0].lower().startswith("socks"):
        raise InputError(_proxy_problem(f"{file.source} is not fetched through SOCKS"))
    opener = urllib.request.build_opener(
        _NoDowngrade, urllib.request.HTTPSHandler(context=_tls()), urllib.request.ProxyHandler(proxies)
    )
    with written_beside(file.target) as part:
        try:
            with opener.open(file.url, timeout=_TIMEOUT) as response:
                part.write_bytes(response.read(file.size + 1))
        except (http.client.HTTPException, ValueError) as error:  # an answer that is no HTTP, a redirect to no address
            raise InputError(_unreachable(file.source, error)) from None
        _check(part, file)


@functools.cache
def _tls():
    """The system's certificates, and those that come with Python packages, since some systems' are not found."""
    context = ssl.create_default_context()
    try:
        import certifi
    except ImportError:
        return context
    context.load_verify_locations(certifi.where())
    return context


def _check(part, file):
    size = part.stat().st_size
    if size == file.size and _checksum(part, file.checksum.partition(":")[0]) == file.checksum:
        return
    part.unlink()
    raise InputError(_wrong(file, "another content" if size == file.size else f"{size} bytes instead of {file.size}"))


def _wrong(file, found):
    return f"{file.url} gave {found}, not the published {file.target.name}: it was removed. Start the download again."


def _checksum(path, kind):
    if kind == "sha256":
        return f"sha256:{sha256_of(path)}"
    data = path.read_bytes()  # files without a SHA-256 on the hub are small
    return f"git:{hashlib.sha1(b'blob %d' % len(data) + bytes(1) + data).hexdigest()}"


def _network_errors():
    """The exceptions of huggingface_hub's HTTP library (which one it is depends on the version) and of sockets."""
    from huggingface_hub.errors import HTTPError

    errors = (HTTPError, OSError)
    if issubclass(HTTPError, OSError):  # of requests, which hands on those of the library below it
        from urllib3.exceptions import HTTPError as LineError

        errors += (LineError,)
    return errors


def _unreachable(source, error):
    reason = str(getattr(error, "reason", "") or error).strip().splitlines() or [type(error).__name__]
    return (
        f"{source} cannot be fetched ({reason[0][:200]}). Check the connection and the disk, and start the download "
        "again: what is fetched already is kept."
    )


def _refusal(repository, error):
    code = getattr(error.response, "status_code", "no")
    return (
        f"The Hugging Face hub refuses {repository} (status {code}). "
        "Start the download again later, or fetch its files by hand."
    )


def _gate(repository):
    elsewhere = (
        "Only its VAE and CLIP vision tower are fetched, 1.5 GB. Not needed where svd_xt.safetensors (9.6 GB) or "
        "svd_xt_1_1.safetensors is in ComfyUI's models/checkpoints: it carries the same."
    )
    return (
        f"{repository} asks you to accept its licence first: sign in on https://huggingface.co/{repository}, accept it "
        "there, log in with `hf auth login` where this runs (or set HF_TOKEN), and start the download again."
        + (f" {elsewhere}" if repository == HUB_FILES["svd"][0] else "")
    )


def describe(files) -> str:
    """A table for people: the files, their sizes and where they come from."""
    rows = [(str(file.target), readable_size(file.size), file.source) for file in files]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = [f"  {target:<{widths[0]}}  {size:>{widths[1]}}  from {source}" for target, size, source in rows]
    return "\n".join([*lines, f"{len(files)} files, {readable_size(sum(file.size for file in files))}"])
