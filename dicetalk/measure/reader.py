"""Reads drawn people off pictures: the mouth, the other blendshapes, the emotion and how strong it is, and who it is.

A small network that was trained on drawings alone (`reader_training`), so that it knows nothing of any model whose
pictures it judges. It reads each picture by itself. Its file is safetensors in half precision; the metadata says how
it was trained, and how well it reads drawn people that it has never seen.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..emotion.options import NAMES
from ..errors import InputError, reason
from ..files import write_errors, written_beside
from ..reading.clip import BLENDSHAPES

FORMAT, VERSION = "dicetalk-drawn-reader", "1"
SIZE = 64  # pixels of a side of the pictures that the network sees
EMBEDDING = 48
SHIPPED = Path(__file__).resolve().parents[2] / "miniature" / "reader.safetensors"
_MAX_BYTES = 2**24
_WIDTHS = (16, 32, 64, 128)
_HIDDEN = 160
_BATCH = 256
_LEAST = 0.02  # of a probability: one picture alone decides nothing
_HEADS = {"emotion": len(NAMES), "strength": 1, "mouth": 1, "blendshapes": len(BLENDSHAPES), "embedding": EMBEDDING}


class ReaderNetwork(nn.Module):
    """(n, 3, 64, 64) pictures, 0 to 1 → dict of "emotion" (n, 8) logits, "strength" (n, 1), "mouth" (n, 1),
    "blendshapes" (n, 52) and "embedding" (n, 48) of length 1."""

    def __init__(self):
        super().__init__()
        layers, before = [], 3
        for width in _WIDTHS:
            layers += [_convolution(before, width, 2), _Block(width)]
            before = width
        self.body = nn.Sequential(*layers, nn.Conv2d(before, 32, 1), nn.ReLU(), nn.Flatten())
        self.hidden = nn.Sequential(nn.Linear(32 * (SIZE // 2 ** len(_WIDTHS)) ** 2, _HIDDEN), nn.ReLU())
        self.heads = nn.ModuleDict({name: nn.Linear(_HIDDEN, count) for name, count in _HEADS.items()})

    def forward(self, pictures):
        hidden = self.hidden(self.body(pictures * 2 - 1))
        read = {name: head(hidden) for name, head in self.heads.items()}
        return {**read, "embedding": F.normalize(read["embedding"].float(), dim=1)}


class _Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first, self.second = _convolution(width, width, 1), nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, values):
        return F.relu(values + self.norm(self.second(self.first(values))))


def _convolution(before, width, stride):
    return nn.Sequential(
        nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    )


@dataclass(frozen=True)
class DrawnReader:
    """The reader, ready to read.

    Attributes:
        network: ReaderNetwork in evaluation mode.
        provenance: how it was trained; text → JSON value.
        errors: how it reads drawn people that it has never seen, as `reader_training.errors` gives it.
    """

    network: ReaderNetwork
    provenance: dict
    errors: dict

    @torch.no_grad()
    def read(self, frames) -> dict[str, np.ndarray]:
        """What each of some pictures shows.

        Args:
            frames: (n, height, width, 3) RGB, uint8 or floats from 0 to 1, array or tensor; or a list of PIL pictures
                or of (height, width, 3) arrays, of one size. Other sizes than 64 × 64 are resized.

        Returns:
            float32 arrays:
            mouth: (n,) how far the lips are apart, as `drawn.lip_gap`.
            blendshapes: (n, 52), 0 to 1, columns as BLENDSHAPES. What a drawing cannot show is near 0.
            emotion: (n, 8) logarithms of probabilities, columns as NAMES.
            strength: (n,) of the expression, as `Take.shown`: 0 for none, 0.9 for level 3, more beyond it.
            embedding: (n, 48) of length 1: who it is, whatever the wall, the clothes and the expression.

        Raises:
            InputError: no pictures, or another form.
        """
        pictures = as_pictures(frames)
        device = next(self.network.parameters()).device
        parts = [self.network(part.to(device)) for part in pictures.split(_BATCH)]
        read = {name: torch.cat([part[name] for part in parts]).float().cpu() for name in _HEADS}
        return {
            "mouth": read["mouth"][:, 0].numpy(),
            "blendshapes": read["blendshapes"].clamp(0, 1).numpy(),
            "emotion": read["emotion"].log_softmax(1).numpy(),
            "strength": read["strength"][:, 0].clamp(min=0).numpy(),
            "embedding": read["embedding"].numpy(),
        }


def as_pictures(frames) -> Tensor:
    """Pictures of any size as `DrawnReader.read` takes them → (n, 3, 64, 64) float32, 0 to 1."""
    if not isinstance(frames, Tensor):
        try:
            frames = torch.from_numpy(np.ascontiguousarray(np.stack([np.asarray(frame) for frame in frames])))
        except (TypeError, ValueError) as error:
            raise InputError(f"The pictures to read must be RGB pictures of one size ({reason(error)}).") from error
    if frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise InputError(
            f"The pictures to read have the shape {tuple(frames.shape)}: give (number, height, width, 3), at least one."
        )
    pictures = (frames.float() / 255 if frames.dtype == torch.uint8 else frames.float()).permute(0, 3, 1, 2)
    if not pictures.isfinite().all():
        raise InputError("The pictures to read hold values that are not finite numbers.")
    if pictures.shape[2:] != (SIZE, SIZE):
        pictures = F.interpolate(pictures, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
    return pictures.clamp(0, 1).contiguous()


def of_clip(reading) -> dict:
    """What a clip shows as a whole, from `DrawnReader.read` of its pictures.

    Returns:
        emotion: (8,) probabilities, all pictures' evidence together; its largest is the answer.
        shares: (8,) mean of the pictures' probabilities: for mixes, whose emotions each show in part.
        strength: float, the mean.
        embedding: (48,) of length 1.
    """
    logarithms = np.log(np.maximum(np.exp(reading["emotion"]), _LEAST)).mean(0)
    mean = reading["embedding"].mean(0)
    return {
        "emotion": np.exp(logarithms) / np.exp(logarithms).sum(),
        "shares": np.exp(reading["emotion"]).mean(0),
        "strength": float(reading["strength"].mean()),
        "embedding": mean / max(float(np.linalg.norm(mean)), 1e-9),
    }


def save_reader(path, network, provenance, errors):
    """Write a reader's file in half precision; `read_reader` reads it."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    tensors = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    metadata = {
        **{"format": FORMAT, "version": VERSION},
        **{"provenance": json.dumps(provenance), "errors": json.dumps(errors)},
    }
    with written_beside(path) as part, write_errors(path):
        part.write_bytes(save(tensors, metadata))


def read_reader(path=None) -> DrawnReader:
    """The reader in a file; the one that comes with the project's source when None.

    Raises:
        InputError: no file, or another one.
    """
    path = SHIPPED if path is None else Path(path)
    if not path.is_file():
        remedy = "give --reader FILE, or make one: python -m dicetalk evaluate --train-reader FILE"
        raise InputError(f"{path}: there is no reader of drawn people here; {remedy}")
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path} is too large for a reader of drawn people.")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if (metadata.get("format"), metadata.get("version")) != (FORMAT, VERSION):
                raise InputError(f"{path} is no reader of drawn people, or one of another version.")
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
        network = ReaderNetwork()
        network.load_state_dict(tensors)
        provenance, errors = json.loads(metadata["provenance"]), json.loads(metadata["errors"])
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read as a reader of drawn people ({reason(error)}).") from error
    return DrawnReader(network.float().eval().requires_grad_(False), provenance, errors)
