"""From decoded chunks to the frames of a video file, decoding and doubling each in a thread of its own."""

import contextlib

from .ahead import read_ahead
from .frame_rate import double_frame_rate
from .pixels import as_pixels

FRAMES_AHEAD = 64  # a chunk of the largest size, so that the next one is decoded meanwhile


def video_frames(chunks, double=False):
    """Decoded chunks → frames; while the caller encodes some, the next are doubled, and those after them decoded.

    Memory does not grow with the clip: what waits are at most two times 64 frames of three bytes a pixel.

    Args:
        chunks: iterable of (n, 3, H, W) float tensors in 0..1, on the CPU; taken in another thread.
        double: put a frame between every two, see `double_frame_rate`.

    Yields:
        (H, W, 3) uint8 arrays. Closing the generator ends its threads; do so where an exception may leave it behind.
    """
    frames = read_ahead(_pixels(chunks), FRAMES_AHEAD)
    if double:
        frames = read_ahead(_doubled(frames), FRAMES_AHEAD)
    with contextlib.closing(frames):
        yield from frames


def _pixels(chunks):
    with contextlib.closing(chunks) if hasattr(chunks, "close") else contextlib.nullcontext():
        for chunk in chunks:
            for frame in chunk.permute(0, 2, 3, 1).numpy():
                yield as_pixels(frame, 8)
            chunk = frame = None  # not kept while the next one is decoded


def _doubled(frames):
    with contextlib.closing(frames):
        yield from double_frame_rate(frames)
