"""Frames as arrays of whole numbers, which is what encoders take."""

import numpy as np
from PIL import Image

from ..errors import InputError

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def as_pixels(frame, bit_depth):
    """uint8, or uint16 for more than 8 bits, of the full range."""
    frame = np.asarray(frame)
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise InputError(f"A frame has the shape (height, width, 3), and this one {frame.shape}.")
    if bit_depth > 8:
        if frame.dtype == np.uint8:
            frame = frame / np.float32(255)
        frame = (_unit(frame) * 65535).round().astype(np.uint16)
    elif frame.dtype != np.uint8:
        frame = (_unit(frame) * 255).round().astype(np.uint8)
    return np.ascontiguousarray(frame)


def _unit(frame):
    return np.clip(np.nan_to_num(frame.astype(np.float32)), 0, 1)


def clip_pixels(image, size):
    """A picture as CLIP's vision tower takes it: PIL RGB → (1, 3, size, size) float32, resized with Lanczos."""
    import torch

    pixels = np.asarray(image.resize((size, size), Image.Resampling.LANCZOS), dtype=np.float32) / 255
    pixels = (pixels - np.float32(_CLIP_MEAN)) / np.float32(_CLIP_STD)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]


def at_resolution(frames, size):
    """Frames at another size, for a video that keeps the portrait's resolution.

    Args:
        frames: iterable of (height, width, 3) arrays or pictures, uint8 or float in 0..1.
        size: (width, height) in pixels; odd sides become one smaller, as video needs even ones.

    Yields:
        (height, width, 3) uint8 arrays, resized with Lanczos.
    """
    width, height = (max(2, side // 2 * 2) for side in size)
    for frame in frames:
        picture = Image.fromarray(as_pixels(frame, 8))
        yield np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))
