"""Checks of values that ComfyUI lets through."""

import hashlib
import logging
import math
from collections.abc import Mapping

import torch

from ..dicetalk.errors import InputError
from ..dicetalk.model.audio import check_rate

_MANY = 0.05  # of a picture's values: so many are beyond its range by another scale, and not by sharpening or HDR


def require_picture(image, name):
    """InputError unless an IMAGE is (count, height, width, channels), not empty, in grey, in colour, or with alpha."""
    if image.ndim != 4 or image.numel() == 0 or image.shape[-1] not in (1, 3, 4):
        raise InputError(f"{name} has the shape {tuple(image.shape)}, which is no picture: check the node it is from.")


def in_unit_range(image, name):
    """An IMAGE with values of 0 to 1: bytes, and values of 0 to 255 or -1 to 1, are scaled, by what its first picture
    holds, with a line in the log. A few values beyond, as sharpening and HDR have them, stay."""
    first = image[0, ..., :3]
    if image.dtype == torch.uint8:
        kind, scaled = "0 to 255", lambda: image.float() / 255
    elif not image.is_floating_point():
        raise InputError(
            f"{name} holds {image.dtype}, and an IMAGE has numbers from 0 to 1: check the node it is from."
        )
    elif _MANY * first.numel() < (first > 2).sum() and first.max() <= 255:
        kind, scaled = "0 to 255", lambda: image / 255
    elif _MANY * first.numel() < (first < -0.1).sum() and first.min() >= -1.1:
        kind, scaled = "-1 to 1", lambda: (image + 1) / 2
    else:
        return image
    logging.warning("DICE-Talk: %s has values of %s, which were scaled to 0 to 1.", name, kind)
    return scaled()


def require_audio(audio, name):
    """The waveform, (1, channels, samples), and the rate in Hz of an AUDIO; InputError unless it is one clip."""
    if not isinstance(audio, Mapping) or not {"waveform", "sample_rate"} <= set(audio):
        raise InputError(f"{name} is no AUDIO with a waveform and a sample_rate: check the node it is from.")
    waveform, rate = audio["waveform"], audio["sample_rate"]
    if not isinstance(waveform, torch.Tensor) or waveform.ndim != 3:
        shape = tuple(waveform.shape) if isinstance(waveform, torch.Tensor) else type(waveform).__name__
        raise InputError(
            f"{name} has a waveform of {shape}, and a tensor of (1, channels, samples) is needed: check the node it is "
            "from."
        )
    if len(waveform) != 1:
        raise InputError(f"{name} holds a batch of {len(waveform)} clips, and one can be used: give one.")
    if waveform.numel() == 0:
        raise InputError(f"{name} holds no sound at all (0 samples): check the node it is from.")
    try:
        rate = float(rate)
    except (TypeError, ValueError):
        raise InputError(f"{name} has the sample_rate {rate!r}: a number in Hz is needed.") from None
    check_rate(rate if rate % 1 else int(rate), name)
    return waveform, round(rate)


def require_finite(**values):
    """InputError for a number that is NaN or infinite: JSON can hold it, and it passes every minimum and maximum."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise InputError(f"{name} is {value}: give a finite number.")


def digest(value):
    """SHA-256 of a value's text, for `fingerprint_inputs`.

    ComfyUI writes a fingerprint into the graph that every saved image and video holds, where the names and folders of
    a person's files have no place.
    """
    return hashlib.sha256(repr(value).encode(errors="surrogatepass")).hexdigest()
