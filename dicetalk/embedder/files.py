"""The embedder's file: safetensors with its weights, and in the metadata what it is and where it came from.

Metadata: `format` ("dicetalk-embedder"), `version`, `config` (JSON, `EmbedderConfig`), `reading` (JSON:
`temperature`, `whisper` and `use`, see `EmbedderFile`) and `provenance` (JSON: how it was trained). Loading reads
numbers and text, and executes nothing.
"""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..emotion.options import NAMES
from ..emotion.text import one_line
from ..errors import InputError
from ..files import written_beside
from . import USES
from .model import EmbedderConfig, EmotionEmbedder

FORMAT, VERSION = "dicetalk-embedder", "1"
MAX_BYTES = 2**30
_LARGEST = {
    **{"visual_features": 4096, "audio_features": 4096, "width": 4096, "heads": 64, "layers": 64},
    **{"code": 4096, "tokens": 10_000},
}


@dataclass(frozen=True)
class EmbedderFile:
    """What a file holds.

    Attributes:
        model: EmotionEmbedder, in evaluation mode, without gradients.
        temperature: see `reader.posterior`.
        whisper: `features.whisper_digest` of the Whisper whose states it was trained on; "" for none in particular.
        provenance: how it was trained: text → JSON value.
        use: "both", "visual" or "audio": the modalities it was trained with. Files that do not say it: both.
    """

    model: EmotionEmbedder
    temperature: float
    whisper: str
    provenance: dict
    use: str = "both"


def save_embedder(path, model, temperature, whisper="", provenance=None, use="both"):
    """Write an embedder; see `EmbedderFile`. The file is written beside and renamed."""
    reading = {"temperature": float(temperature), "whisper": whisper, "use": use}
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "config": json.dumps(dataclasses.asdict(model.config)),
        "reading": json.dumps(reading),
        "provenance": json.dumps(provenance or {}),
    }
    tensors = {
        name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in model.state_dict().items()
    }
    try:
        with written_beside(path) as part:
            part.write_bytes(save(tensors, metadata))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}).") from error


def read_embedder(path):
    """The EmbedderFile at a path.

    Raises:
        InputError: names the file, and what is wrong with it: missing, too large, not an embedder, of another version,
            a configuration or tensors that do not fit, numbers that are not finite.
    """
    path = Path(path)
    try:
        return _read(path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not a readable safetensors file ({reason}).") from error


def _read(path):
    if not path.is_file():
        raise InputError("no such file.")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"too large for an embedder (more than {MAX_BYTES // 2**20} MB).")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise InputError(f"not an emotion embedder; its metadata does not say {FORMAT}.")
        if metadata.get("version") != VERSION:
            raise InputError(f"an embedder of another version; this one reads version {VERSION}.")
        config = _config(_record(metadata, "config"))
        with torch.device("meta"):
            model = EmotionEmbedder(config)
        slices = {name: file.get_slice(name) for name in file.keys()}
        found = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
        expected = {name: (tuple(tensor.shape), "F32") for name, tensor in model.state_dict().items()}
        for name in sorted(expected.keys() | found.keys()):
            if found.get(name) != expected.get(name):
                raise InputError(
                    f"its tensors do not fit its configuration: {name[:80]} is {_tell(found.get(name))}, and should be "
                    f"{_tell(expected.get(name))}."
                )
        # Copies: what is mapped to the file would keep Windows from replacing it while it is in use.
        tensors = {name: file.get_tensor(name).clone() for name in slices}
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise InputError(f"its tensor {name} holds numbers that are not finite.")
    model.load_state_dict(tensors, assign=True)
    reading = _record(metadata, "reading")
    temperature, whisper = reading.get("temperature"), reading.get("whisper")
    if not isinstance(temperature, float) or not 0 < temperature < math.inf or not isinstance(whisper, str):
        raise InputError("its metadata does not say how to read with it (temperature and whisper).")
    use = reading.get("use", "both")
    if use not in USES:
        raise InputError(f"its metadata's use must be one of {', '.join(USES)}.")
    model.eval().requires_grad_(False)
    return EmbedderFile(model, temperature, whisper, _record(metadata, "provenance"), use)


def load_embedder(path, whisper=None, device="cpu"):
    """A trained embedder, ready to read clips.

    Args:
        path: the .safetensors file that `python -m dicetalk train-embedder` wrote.
        whisper: the encoder (`dicetalk.checkpoints.load_whisper_encoder`), the folder it is in, or None for that
            of the checkpoint that is found first. It is loaded when a clip with sound is read.
        device: where the embedder and Whisper compute; an encoder that is given is moved there.

    Returns:
        `reader.LearnedEmbedder`, which has the method `read` (`dicetalk.reading.clip`).

    Raises:
        InputError: as `read_embedder`.
    """
    from .reader import LearnedEmbedder

    return LearnedEmbedder(read_embedder(path), one_line(Path(path).name), whisper, device)


def _record(metadata, name):
    try:
        record = json.loads(metadata.get(name, ""))
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise InputError(f"its metadata holds no readable {name}.")
    return record


def _config(record):
    emotions, sizes = record.get("emotions"), {name: record.get(name) for name in _LARGEST}
    if set(record) != {"emotions", *_LARGEST}:
        raise InputError("its configuration does not name what an embedder has.")
    if not isinstance(emotions, list) or not all(name in NAMES for name in emotions if isinstance(name, str)):
        raise InputError(f"its emotions must be some of {', '.join(NAMES)}.")
    if not all(isinstance(name, str) for name in emotions) or len(set(emotions)) < len(emotions):
        raise InputError("its emotions must be names, each once.")
    if "neutral" not in emotions or len(emotions) < 2:
        raise InputError("its emotions must be neutral and at least one other.")
    for name, size in sizes.items():
        if type(size) is not int or not 1 <= size <= _LARGEST[name]:
            raise InputError(f"its configuration's {name} must be a whole number from 1 to {_LARGEST[name]}.")
    if sizes["width"] % (2 * sizes["heads"]):
        raise InputError("its configuration's width must be a multiple of twice its heads.")
    return EmbedderConfig(tuple(emotions), **sizes)


def _tell(found):
    return "missing" if found is None else f"{found[1]} of shape {found[0]}"
