"""Fetch what a checkpoint lacks, from the places where its owners publish it. Nothing that is fetched is run.

The parts, Whisper and Stable Video Diffusion come from the Hugging Face hub, through `huggingface_hub`; the emotion
priors from the authors' repository on GitHub, at a fixed commit. Every file's size and checksum are compared with what
the hub, or this module, says. An interrupted download goes on where it stopped.
"""

import functools
import hashlib
import os
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError
from .files import readable_size, require_space, sha256_of, written_beside

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

_TIMEOUT = 30  # seconds without an answer


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch.

    Attributes:
        target: where it will lie.
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


def plan_download(output, groups=GROUPS, endpoint=None) -> tuple[list[RemoteFile], dict[str, str]]:
    """What has to be fetched to complete a checkpoint.

    A file that is there, as published or as safetensors, is never fetched, and a repository is only asked when one of
    its files is missing.

    Args:
        output: the checkpoint folder; need not exist.
        groups: of `GROUPS`.
        endpoint: address of the hub, huggingface_hub's own when None.

    Returns:
        The files, and repository → what to do about it, for those that do not let this user in.

    Raises:
        InputError: a repository cannot be reached, or does not hold what it should.
    """
    output = Path(output)
    files, refusals = [], {}
    for group in groups:
        if group == "emotions":
            files += _missing_priors(output)
            continue
        repository, names = HUB_FILES[group]
        missing = {name: output / place for name, place in names.items() if not _is_there(output, place)}
        if group == "whisper" and all(_is_there(output.parent / "sonic", place) for place in names.values()):
            continue
        if missing:
            try:
                files += _hub_files(repository, missing, endpoint)
            except _NoAccess as error:
                refusals[repository] = str(error)
    return files, refusals


def fetch(file: RemoteFile) -> None:
    """Fetch one file; it appears at its place once it is complete and right.

    Raises:
        InputError: no connection, no access, another size or checksum than announced (what came is removed then), or
            the disk is full. Run again, a file from the hub goes on where it stopped.
    """
    if file.target.is_file() and file.target.stat().st_size > 0:
        return
    try:
        if file.on_hub:
            _fetch_from_hub(file)
        else:
            _fetch_small(file)
    except (urllib.error.URLError, *_network_errors()) as error:
        raise InputError(_unreachable(file.source, error)) from None


def _is_there(output, place):
    """Whether a checkpoint has a file, as published or converted; parts may also lie in the folder itself."""
    targets = [output / place]
    if place.startswith("DICE-Talk/"):
        targets.append(output / targets[0].name)
    same = [
        name
        for path in targets
        for name in (path, path.with_suffix(".safetensors"), path.with_name(path.name.replace(".fp16.", ".")))
    ]
    return any(path.is_file() and path.stat().st_size > 0 for path in same)


def _missing_priors(output):
    return [
        RemoteFile(
            output / "emotions" / name,
            "toto222/DICE-Talk",
            PRIORS_URL + name,
            PRIOR_SIZE,
            f"sha256:{digest}",
            on_hub=False,
        )
        for name, digest in PRIOR_SHA256.items()
        if not _is_there(output, f"emotions/{name}")
    ]


class _NoAccess(Exception):
    """What to do about a repository that does not let this user in."""


def _hub_files(repository, missing, endpoint):
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    api = HfApi(endpoint=endpoint)
    try:
        info = api.model_info(repository, files_metadata=True, timeout=_TIMEOUT)
        if info.gated:
            api.auth_check(repository)
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
        found.append(
            RemoteFile(
                target=target,
                source=repository,
                url=hf_hub_url(repository, entry.rfilename, revision=info.sha, endpoint=endpoint),
                size=entry.size,
                checksum=f"sha256:{entry.lfs.sha256}" if entry.lfs else f"git:{entry.blob_id}",
            )
        )
    return found


def _fetch_from_hub(file):
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    # hf_hub_download starts anew after an interruption; http_get, which it uses, can go on.
    file.target.parent.mkdir(parents=True, exist_ok=True)
    part = file.target.with_name(f".{file.target.name}.{file.checksum.rpartition(':')[2][:12]}.part")
    done = part.stat().st_size if part.exists() else 0
    if done > file.size:
        part.unlink()
        done = 0
    require_space(file.target.parent, file.size - done)
    while done < file.size:
        try:
            with open(part, "ab") as stream:
                http_get(
                    file.url,
                    stream,
                    resume_size=done,
                    headers=build_hf_headers(library_name="dicetalk"),
                    expected_size=file.size,
                    displayed_filename=file.target.name,
                )
            break
        except GatedRepoError:
            raise InputError(_gate(file.source)) from None
        except HfHubHTTPError as error:
            raise InputError(_refusal(file.source, error)) from None
        except _network_errors():
            before, done = done, part.stat().st_size
            if done <= before:
                raise
    _check(part, file)
    os.replace(part, file.target)


def _fetch_small(file):
    with written_beside(file.target) as part:
        with urllib.request.urlopen(file.url, timeout=_TIMEOUT, context=_tls()) as response:
            part.write_bytes(response.read(file.size + 1))
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
    found = "another content" if size == file.size else f"{size} bytes instead of {file.size}"
    raise InputError(
        f"{file.url} gave {found}, not the published {file.target.name}: it was removed. Run the command again."
    )


def _checksum(path, kind):
    if kind == "sha256":
        return f"sha256:{sha256_of(path)}"
    data = path.read_bytes()  # files without a SHA-256 on the hub are small
    return f"git:{hashlib.sha1(b'blob %d' % len(data) + bytes(1) + data).hexdigest()}"


def _network_errors():
    """The exceptions of huggingface_hub's HTTP library (which one it is depends on the version) and of sockets."""
    from huggingface_hub.errors import HTTPError

    return (HTTPError, OSError)


def _unreachable(source, error):
    reason = str(getattr(error, "reason", "") or error).strip().splitlines() or [type(error).__name__]
    return (
        f"{source} cannot be fetched ({reason[0][:200]}). Check the connection and the disk, and run the command "
        "again: what is fetched already is kept."
    )


def _refusal(repository, error):
    code = getattr(error.response, "status_code", "no")
    return (
        f"The Hugging Face hub refuses {repository} (status {code}). "
        "Run the command again later, or fetch its files by hand."
    )


def _gate(repository):
    return (
        f"{repository} asks you to accept its licence first: sign in on https://huggingface.co/{repository}, "
        "accept it there, log in here with `hf auth login`, and run the command again. In ComfyUI it is not needed: "
        "svd_xt.safetensors in models/checkpoints carries the same VAE and CLIP vision."
    )


def describe(files) -> str:
    """A table for people: the files, their sizes and where they come from."""
    rows = [(str(file.target), readable_size(file.size), file.source) for file in files]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = [f"  {target:<{widths[0]}}  {size:>{widths[1]}}  from {source}" for target, size, source in rows]
    return "\n".join([*lines, f"{len(files)} files, {readable_size(sum(file.size for file in files))}"])
