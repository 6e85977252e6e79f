"""Back into the picture: the frames of a cropped portrait, pasted where it was cut from."""

import torch

from ..errors import InputError
from ..memory import fits, free_memory

FEATHER = 0.1
MAX_FEATHER = 0.5
_PIECE = 4_000_000  # pixels of the crop that are worked on at once, 48 MB of float32


def paste_back(frames, background, crop_box, feather=FEATHER, on_piece=None):
    """Resize frames to the crop that they show, and fade them into the picture.

    Where the crop's edge is the picture's own edge there is nothing to fade into, and the frames reach it in full; so
    frames of an uncropped portrait fill the picture. The pixels outside the crop stay as they are, bit for bit.

    Args:
        frames: (N, h, w, 3) in 0..1, of any size.
        background: (M, height, width, 3) the picture, once or M times. The result is as long as the longer of the
            two; the shorter holds its last frame.
        crop_box: x1, y1, x2, y2 in whole pixels of the background.
        feather: width of the faded edge, a share of the crop's shorter side from 0 to 0.5. The frames come in from
            nothing at the crop's edge to all at this distance inside it, along 3t² - 2t³.
        on_piece: called with (frames done, frames in all) during the work.

    Returns:
        (max(N, M), height, width, 3) of the background's type and on its device. Besides it, little is held at once.

    Raises:
        InputError: a feather out of its range, a crop that is not inside the background, or a result for which memory
            is not enough.
    """
    if not 0 <= feather <= MAX_FEATHER:
        raise InputError(f"The feather must be a number from 0 to {MAX_FEATHER:g}, not {feather!r}.")
    height, width = background.shape[1:3]
    left, top, right, bottom = crop_box
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise InputError(f"The crop {tuple(crop_box)} is not inside the picture, which is {width}×{height}.")
    weights = edge_weights(crop_box, (width, height), feather).to(background)[..., None]
    total, piece = max(len(frames), len(background)), max(1, _PIECE // ((right - left) * (bottom - top)))
    _require_memory(total, background)
    result = background.new_empty(total, height, width, 3)
    for start in range(0, total, piece):
        numbers = torch.arange(start, min(start + piece, total))
        part = result[start : start + piece]
        part.copy_(background[numbers.clamp(max=len(background) - 1)])
        shown = frames[numbers.clamp(max=len(frames) - 1)].to(background)
        hole = part[:, top:bottom, left:right]
        hole.copy_(torch.lerp(hole, _resized(shown, bottom - top, right - left), weights))
        if on_piece:
            on_piece(start + len(numbers), total)
    return result


def _require_memory(total, background):
    free, each = free_memory(background.device), background[0].nbytes
    if fits(total * each, free):
        return
    height, width = background.shape[1:3]
    raise InputError(
        f"{total} pictures of {width}×{height} pixels need {total * each / 1e9:.1f} GB of memory, and "
        f"{max(free, 0) / 1e9:.1f} GB are free: paste into a smaller picture, or a shorter clip."
    )


def edge_weights(crop_box, image_size, feather):
    """How much of a frame is seen in each pixel of the crop: (height, width) float32 of the crop, 0..1.

    Args:
        crop_box: x1, y1, x2, y2 in whole pixels.
        image_size: width, height of the picture; edges of the crop on its edges are not faded.
        feather: share of the crop's shorter side.
    """
    left, top, right, bottom = crop_box
    depth = feather * min(right - left, bottom - top)
    across = _ramp(right - left, depth, left > 0, right < image_size[0])
    return _ramp(bottom - top, depth, top > 0, bottom < image_size[1])[:, None] * across


def _ramp(length, depth, fades_in, fades_out):
    centres = torch.arange(length, dtype=torch.float64) + 0.5
    weights = torch.ones(length, dtype=torch.float64)
    for fades, distance in ((fades_in, centres), (fades_out, length - centres)):
        if fades and depth > 0:
            share = (distance / depth).clamp(max=1)
            weights = weights * share * share * (3 - 2 * share)
    return weights.float()


def _resized(frames, height, width):
    """The frames at another size, by antialiased bicubic interpolation."""
    if frames.shape[1:3] == (height, width):
        return frames
    planes = frames.movedim(-1, 1)
    exact = planes.float()  # half precision is not resized on every device
    resized = torch.nn.functional.interpolate(exact, (height, width), mode="bicubic", antialias=True)
    return resized.clamp(0, 1).movedim(1, -1).to(frames.dtype)
