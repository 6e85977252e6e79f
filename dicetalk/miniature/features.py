"""From drawn takes to prepared clips, as `dicetalk.training.prepare` makes them of recordings, but without a crop."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..files import write_errors, written_beside
from ..media.pixels import clip_pixels
from ..media.portrait import draw_face_mask
from ..model.audio import audio_features
from ..training.dataset import SHARD, Record, write_shard
from .drawn_takes import SIZE
from .encoders import IMAGE_PIXELS

_PER_SHARD = 100


@torch.no_grad()
def encoded(takes, audio_encoder, image_encoder, path, on_take=None):
    """What the encoders make of takes, kept in a file.

    Args:
        takes: a list of name → array with frames and sound.
        audio_encoder, image_encoder: transformers' `WhisperEncoder` and `CLIPVisionModelWithProjection`.
        path: the file; what it holds is taken.
        on_take: called as ``on_take(done, total)``.

    Returns:
        For each take audio (frames, 10, 5, width) and clip (frames, width), float16.
    """
    path = Path(path)
    if not path.exists():
        arrays: dict[str, Any] = {}
        for number, take in enumerate(takes):
            frames = take["frames"]
            arrays[f"{number}.audio"] = audio_features(audio_encoder, take["sound"])[: len(frames)].half().numpy()
            pixels = torch.cat([clip_pixels(Image.fromarray(frame), IMAGE_PIXELS) for frame in frames])
            arrays[f"{number}.clip"] = image_encoder(pixels).image_embeds.half().numpy()
            if on_take is not None:
                on_take(number + 1, len(takes))
        with written_beside(path) as part, write_errors(path), open(part, "wb") as file:
            np.savez(file, **arrays)
    with np.load(path) as file:
        return [{name: file[f"{number}.{name}"] for name in ("audio", "clip")} for number in range(len(takes))]


@torch.no_grad()
def write_clips(folder, chosen, takes, features, vae, on_take=None) -> None:
    """Write the shards that `dicetalk.training.dataset.PreparedClips` reads; shards that are there are kept.

    Args:
        folder: made if missing.
        chosen: `drawn_takes.choose`.
        takes: the same ones, drawn.
        features: `encoded`.
        vae: encodes the pictures.
        on_take: called as ``on_take(done, total)``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(takes), _PER_SHARD):
        path = folder / SHARD.format(first // _PER_SHARD)
        if path.exists():
            continue
        clips = []
        for number in range(first, min(first + _PER_SHARD, len(takes))):
            take, drawn = chosen[number], takes[number]
            pictures = torch.from_numpy(drawn["frames"]).permute(0, 3, 1, 2).float() / 127.5 - 1
            mask = draw_face_mask(tuple(drawn["box"]), (SIZE, SIZE), (SIZE, SIZE))
            parts = {
                "latents": vae.encode(pictures).latent_dist.mode().half(),
                "clip": torch.from_numpy(features[number]["clip"]),
                "audio": torch.from_numpy(features[number]["audio"]),
                "face_mask": torch.from_numpy(np.rint(255 * mask).astype(np.uint8)),
            }
            record = Record(
                name=f"{number:05d}",
                emotion=take.emotion,
                level=take.level,
                person=str(take.person.number),
                split="train",
                frames=len(drawn["frames"]),
                size=tuple(parts["latents"].shape[2:]),
            )
            clips.append((record, parts))
            if on_take is not None:
                on_take(number + 1, len(takes))
        write_shard(path, clips)
