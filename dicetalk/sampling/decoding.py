"""Latents into frames a few at a time, so that one cannot see where a piece ends: the plan for every VAE.

The temporal decoder of Stable Video Diffusion mixes frames: each of its residual blocks has two convolutions over three
neighbouring frames, and one more follows at the end. In the released size (14 blocks) a frame thus depends on 29 frames
to either side, though hardly on the farther ones; and weakly on all of them, because the blocks' group norms take
their mean and deviation over all frames that are decoded together. So each chunk is decoded with frames to either side,
its context, whose pictures are thrown away. `python -m dicetalk bench --decode` measures what context leaves of the
borders; `CONTEXT` comes from there.
"""

import logging
import math
from typing import Callable, Iterator, NamedTuple

from torch import Tensor

from ..errors import InputError
from ..memory import is_out_of_memory

CHUNK = 10  # frames, as in the published code
LARGEST_CHUNK = 64  # frames; larger ones hardly save time: 1.13 frames are decoded for each that is kept
CONTEXT = 4  # frames to either side
REACH = 29  # frames to either side that the released decoder's convolutions see
# Frames and latent pixels that the group norms need, together with the context, for a steady mean and deviation: it is
# the smallest chunks and the smallest pictures that need more context for it.
STEADY_FRAMES = 15
STEADY_PIXELS = 1600
# What decoding takes at its peak for each frame, in tensors of the frame's size with the channels of the decoder's last
# level: 6 for diffusers' decoder and 6.06 for ComfyUI's, counted from shapes, as a test does. It grows as frames do.
PEAK_TENSORS = 6.1
SCRATCH = 1.05  # times as much, for what kernels take for themselves


class Chunk(NamedTuple):
    """Frames first … last - 1 go to the VAE, and the pictures of start … stop - 1 are kept."""

    first: int
    start: int
    stop: int
    last: int


def plan_chunk(start, frames, size, context) -> Chunk:
    """The chunk of `size` frames that begins at `start` in a clip of `frames`.

    At the clip's ends the context that is not there on one side is added on the other.
    """
    stop = min(start + size, frames)
    together = stop - start + 2 * context
    first = max(0, min(start - context, frames - together))
    return Chunk(first, start, stop, min(first + together, frames))


def context_frames(size, height, width, context=CONTEXT) -> int:
    """Context for chunks of `size` frames: what is asked for, and more for very small chunks and pictures; 0 stays 0.

    Args:
        size: frames of a chunk.
        height, width: of the latents.
        context: frames asked for.
    """
    if context == 0:
        return 0
    steady = max(STEADY_FRAMES, STEADY_PIXELS / (height * width))
    return max(context, min(math.ceil((steady - size) / 2), REACH))


def frame_bytes(channels, height, width, itemsize) -> float:
    """Bytes that decoding takes at its peak for each frame that is decoded at once.

    Args:
        channels: of the decoder's last level, 128 in the released one.
        height, width: of the pictures, in pixels.
        itemsize: bytes of a number, 2 for float16.
    """
    return PEAK_TENSORS * SCRATCH * channels * height * width * itemsize


def fitting_chunk(fits, size=LARGEST_CHUNK, context=CONTEXT) -> tuple[int, int]:
    """The largest chunk, of at most `size` frames, and its context, at most `context`, for a memory of `fits` frames.

    Where that is little, the context is less too, so that no frame is decoded more than three times.
    """
    context = max(0, min(context, fits // 3))
    return max(1, min(size, fits - 2 * context)), context


def decode_in_chunks(
    decode: Callable[[Tensor], Tensor],
    latents: Tensor,
    size: int = CHUNK,
    context: int = CONTEXT,
    start: int = 0,
    stop: int | None = None,
    out_of_memory: Callable[[Exception], bool] = is_out_of_memory,
    release: Callable[[], None] = lambda: None,
    remedy: str = "",
    fits: int | None = None,
) -> Iterator[Tensor]:
    """Decode latents chunk by chunk. Where memory runs out, use chunks of half the size, at last less context.

    Args:
        decode: (n, …) latents → (n, …) frames, decoded together.
        latents: (N, channels, h, w).
        size: frames of a chunk, 1 or more.
        context: frames to either side that are decoded with a chunk, at least; see `context_frames`. Chunks that were
            halved get no more, and those of one frame get less where memory asks for it.
        start, stop: the frames wanted, of N; the chunks are those of the whole clip.
        out_of_memory: recognizes that error among others, which are raised on.
        release: called before a smaller chunk is tried.
        remedy: what else could help, for the error's end.
        fits: frames that memory is known to be enough for; small pictures get no more context than that.

    Yields:
        (up to size, …) frames.

    Raises:
        InputError: memory is too small for even one frame.
    """
    count, (height, width) = len(latents), latents.shape[-2:]
    stop = count if stop is None else stop
    wide = context_frames(size, height, width, context)
    if fits is not None:
        wide = min(wide, max(context, (fits - size) // 2))
    position = start - start % size
    while position < stop:
        chunk = plan_chunk(position, count, size, wide)
        if chunk.stop <= start:  # halved, a chunk may end before the first frame that is wanted
            position = chunk.stop
            continue
        frames = _tried(decode, latents[chunk.first : chunk.last], out_of_memory)
        if frames is None:
            if size == 1 and wide == 0:
                raise InputError(
                    f"Memory is too small for decoding even one frame of {8 * width}×{8 * height} pixels: close "
                    f"what else uses it, or {remedy}."
                )
            release()
            if size > 1 or wide > context:
                size, wide = max(size // 2, 1), context
            else:
                wide //= 2
            logging.getLogger(__name__).warning(
                "Memory ran out while decoding: chunks of %d from here on, with a context of %d to either side%s.",
                *(size, wide, "" if wide >= context else ", so that their borders may show"),
            )
            continue
        yield frames[max(position, start) - chunk.first : min(chunk.stop, stop) - chunk.first]
        del frames  # not kept beside the next ones
        position = chunk.stop


def _tried(decode, latents, out_of_memory):
    """The frames, or None when memory ran out; what the failed try held goes with its exception."""
    try:
        return decode(latents)
    except Exception as error:
        if not out_of_memory(error):
            raise
        return None
