"""Checks of values that ComfyUI lets through."""

import math

from ..dicetalk.errors import InputError


def require_picture(image, name):
    """InputError unless an IMAGE is (count, height, width, channels), not empty, in grey, in colour, or with alpha."""
    if image.ndim != 4 or image.numel() == 0 or image.shape[-1] not in (1, 3, 4):
        raise InputError(f"{name} has the shape {tuple(image.shape)}, which is no picture: check the node it is from.")


def require_finite(**values):
    """InputError for a number that is NaN or infinite: JSON can hold it, and it passes every minimum and maximum."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise InputError(f"{name} is {value}: give a finite number.")
