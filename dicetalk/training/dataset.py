"""Prepared clips: features in safetensors shards, read a stretch at a time.

A shard is ``shard-NNNNN.safetensors``. Its metadata "clips" is a JSON list of records (`Record`'s fields), and clip
number n of them has the tensors

    n.latents      (frames, 4, h, w)      VAE latents of the face crop, unscaled (mode of the posterior)
    n.clip         (frames, dim)          CLIP image embeddings of the same pictures
    n.audio        (frames, 10, 5, width) Whisper states, one window a frame
    n.face_mask    (8h, 8w) uint8         0 or 255
    n.gaussian     (2, 256)               mean and deviation that an embedder read off the clip; may be missing
    n.blendshapes  (frames, 52)           may be missing
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..errors import InputError, reason
from ..files import write_errors, written_beside

SHARD = "shard-{:05d}.safetensors"
FORMAT = "dicetalk-clips-1"


@dataclass(frozen=True)
class Record:
    """A prepared clip: its name, label, person and split, its frames, and what it was made from."""

    name: str
    emotion: str
    level: int
    person: str
    split: str
    frames: int
    size: tuple[int, int]
    gaussian: bool = False
    made_from: str = ""


def write_shard(path, clips):
    """Write clips as one shard.

    Args:
        path: the file.
        clips: [(Record, name → tensor)], see the module.

    Raises:
        InputError: the disk is full, or it cannot be written there.
    """
    from safetensors.torch import save

    tensors = {
        f"{number}.{name}": tensor.contiguous()
        for number, (_, parts) in enumerate(clips)
        for name, tensor in parts.items()
    }
    records = [asdict(record) for record, _ in clips]
    with written_beside(path) as part, write_errors(path):
        part.write_bytes(save(tensors, {"format": FORMAT, "clips": json.dumps(records)}))


def read_records(path) -> list[Record]:
    """The records of a shard; InputError where it is none."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise InputError(f"{path} holds no prepared clips: name the folder that `dicetalk prepare` wrote.")
        return [Record(**{**each, "size": tuple(each["size"])}) for each in json.loads(metadata["clips"])]
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({reason(error)}): remove it, and prepare again.") from error


def shards(folder) -> list[Path]:
    return sorted(Path(folder).glob("shard-*.safetensors"))


class PreparedClips:
    """The prepared clips of a split that are long enough, by name.

    Attributes:
        records: a `Record` each.
        size: latent height and width, the same for all.
        short: how many were passed over.

    Raises:
        InputError: no shards, no clip that fits, sizes that differ, or an emotion without another clip to draw from.
    """

    def __init__(self, folder, frames, split="train"):
        files = shards(folder)
        if not files:
            raise InputError(f"{folder} holds no prepared clips: write them with `python -m dicetalk prepare`.")
        found = [
            (record, file, number)
            for file in files
            for number, record in enumerate(read_records(file))
            if record.split == split
        ]
        fitting = sorted((each for each in found if each[0].frames >= frames), key=lambda each: each[0].name)
        self.short = len(found) - len(fitting)
        if not fitting:
            raise InputError(
                f"{folder} holds no clip of the split {split!r} with {frames} frames or more: give --frames, or "
                "prepare longer clips."
            )
        self.records = [record for record, _, _ in fitting]
        self._places = [(file, number) for _, file, number in fitting]
        self.size = self.records[0].size
        for record in self.records:
            if record.size != self.size:
                raise InputError(
                    f"{record.name} is {record.size} latents in size, and {self.records[0].name} {self.size}: prepare "
                    "all with the same --size."
                )

    def __len__(self):
        return len(self.records)

    def fingerprint(self) -> str:
        """Another text for other clips."""
        content = json.dumps([asdict(record) for record in self.records])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def read(self, number, start, frames, portrait):
        """A stretch of a clip: name → tensor, float32 (face_mask in 0..1); the portrait is one of its frames."""
        file, place = self._places[number]
        stretch = slice(start, start + frames)
        try:
            with safe_open(file, framework="pt") as opened:

                def part(name, at):
                    return opened.get_slice(f"{place}.{name}")[at].float()

                return {
                    "latents": part("latents", stretch),
                    "portrait": part("latents", slice(portrait, portrait + 1))[0],
                    "clip": part("clip", slice(portrait, portrait + 1))[0],
                    "audio": part("audio", stretch),
                    "face_mask": opened.get_tensor(f"{place}.face_mask").float() / 255,
                }
        except (SafetensorError, OSError) as error:
            raise InputError(f"{file} cannot be read ({reason(error)}): prepare again.") from error

    def picture(self, number, frame):
        """One frame of a clip as a portrait: portrait (4, h, w) and clip (dim,)."""
        file, place = self._places[number]
        try:
            with safe_open(file, framework="pt") as opened:
                return {
                    "portrait": opened.get_slice(f"{place}.latents")[frame].float(),
                    "clip": opened.get_slice(f"{place}.clip")[frame].float(),
                }
        except (SafetensorError, OSError) as error:
            raise InputError(f"{file} cannot be read ({reason(error)}): prepare again.") from error

    @cached_property
    def by_person(self):
        """Person → numbers of their clips."""
        found: dict[str, list[int]] = {}
        for number, record in enumerate(self.records):
            found.setdefault(record.person, []).append(number)
        return found

    def gaussian(self, number):
        """(2, 256): mean and deviation that an embedder read off a clip."""
        file, place = self._places[number]
        with safe_open(file, framework="pt") as opened:
            return opened.get_tensor(f"{place}.gaussian").float()

    def references(self):
        """For each clip, the numbers of the clips of its emotion by other people that have a Gaussian."""
        by_emotion = {}
        for number, record in enumerate(self.records):
            if record.gaussian:
                by_emotion.setdefault(record.emotion, []).append(number)
        return [
            [other for other in by_emotion.get(record.emotion, []) if self.records[other].person != record.person]
            for record in self.records
        ]
