"""Twice the frame rate: one motion-compensated frame between every two, with FFmpeg's minterpolate."""

from fractions import Fraction

import av

from ..errors import InputError
from .pixels import as_pixels

SMALLEST_SIDE = 32  # what FFmpeg's minterpolate takes


def double_frame_rate(frames):
    """Put one motion-compensated frame between every two: N frames become 2N, for twice the frame rate.

    FFmpeg's `minterpolate` finds the motion. The frames at even positions are the given ones, unchanged. The last one
    is there twice, so that the video lasts as long as before and no sound at its end is lost; the published code gives
    2N - 1. Streams: three frames are held at a time.

    Args:
        frames: iterable of (H, W, 3) arrays or PIL images, uint8 or float in 0..1, all of one size, no side under 32.

    Yields:
        uint8 (H, W, 3) arrays.

    Raises:
        InputError: frames of changing or too small a size.
    """
    frames = map(_as_uint8, frames)
    current = next(frames, None)
    if current is None:
        return
    interpolator = _Interpolator(*current.shape[:2])
    interpolator.push(current)
    waiting = [current]
    for frame in frames:
        if frame.shape != current.shape:
            raise InputError(
                f"All frames of a video have one size: got {frame.shape[1]}×{frame.shape[0]} pixels after "
                f"{current.shape[1]}×{current.shape[0]}."
            )
        interpolator.push(frame)
        waiting.append(frame)
        while (between := interpolator.pull()) is not None:
            yield waiting.pop(0)
            yield between
    # minterpolate looks one frame ahead and drops the end: the last frame given again makes it finish the last pair.
    interpolator.push(waiting[-1])
    interpolator.push(None)
    while len(waiting) > 1:
        between = interpolator.pull()
        if between is None:
            raise RuntimeError("FFmpeg's minterpolate filter returned fewer frames than expected.")
        yield waiting.pop(0)
        yield between
    yield waiting[-1]
    yield waiting[-1]


class _Interpolator:
    """FFmpeg's minterpolate on one stream of frames; `pull` gives the frames between, in order."""

    def __init__(self, height, width):
        if min(height, width) < SMALLEST_SIDE:
            raise InputError(
                f"Frames of {width}×{height} pixels are too small to double the frame rate: "
                f"{SMALLEST_SIDE} pixels a side are needed."
            )
        self.graph = av.filter.Graph()
        source = self.graph.add(
            "buffer", f"video_size={width}x{height}:pix_fmt=yuv444p:time_base=1/1:frame_rate=1/1:pixel_aspect=1/1"
        )
        # No scene detection: it would repeat a frame where the picture changes a lot. Measured on a moving face, the
        # default bilateral search comes nearer to the true frame between than the slower bidirectional one.
        doubler = self.graph.add("minterpolate", "fps=2:mi_mode=mci:mc_mode=aobmc:scd=none")
        sink = self.graph.add("buffersink")
        source.link_to(doubler)
        doubler.link_to(sink)
        self.graph.configure()
        self.position = 0

    def push(self, frame):
        if frame is not None:
            frame = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv444p")
            frame.pts, frame.time_base = self.position, Fraction(1)
            self.position += 1
        self.graph.push(frame)

    def pull(self):
        """The next frame between two given ones, None when the filter needs more input."""
        while True:
            try:
                frame = self.graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return None
            if frame.pts % 2:
                return frame.to_ndarray(format="rgb24")


def _as_uint8(frame):
    return as_pixels(frame, 8)
