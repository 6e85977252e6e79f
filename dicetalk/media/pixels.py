"""Frames as arrays of whole numbers, which is what encoders take."""

import numpy as np
from PIL import Image

from ..errors import InputError


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
