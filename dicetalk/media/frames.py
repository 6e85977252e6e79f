"""Decoded pictures of a video as they are meant to be seen: upright, with square pixels, in the colours of sRGB."""

import numpy as np

from .tone import TRANSFERS, to_standard_range

_MOST_STRETCH = 8  # times; beyond, a pixel's shape is damaged data
# ITU-T H.273's numbers of the matrices that FFmpeg's swscale knows, which has the same numbers.
_MATRICES = {1, 4, 5, 6, 7, 9}
_COMBED = 20  # of 255 by which a line of an interlaced frame differs from both lines beside it, the same way
_DEFAULT_MATRIX = 5  # BT.601, which swscale takes where nothing is said


def picture_of(frame, stream):
    """(height, width, 3) uint8 of a frame that PyAV decoded.

    Turned and mirrored as its display matrix says; pixels that are not square made so by stretching the shorter side;
    HLG and PQ tone-mapped to standard dynamic range; interlaced ones without combs where something moves; and the
    colour matrix that the frame names used, which PyAV before 17 does not.

    Args:
        frame: `av.VideoFrame`.
        stream: the `av.VideoStream` that it is from.
    """
    size = _square_size(frame.width, frame.height, stream.sample_aspect_ratio)
    matrix = {}
    if frame.colorspace in _MATRICES:
        matrix = {"src_colorspace": int(frame.colorspace), "dst_colorspace": _DEFAULT_MATRIX}
    transfer = stream.codec_context.color_trc  # PyAV before 17 has it of no frame
    high = transfer in TRANSFERS
    wanted = {"width": size[0], "height": size[1], "format": "rgb48le" if high else "rgb24"}
    if frame.interlaced_frame and not high:
        from av import VideoFrame

        whole = without_combs(frame.reformat(format="rgb24", **matrix).to_ndarray())
        pixels = VideoFrame.from_ndarray(whole, format="rgb24").reformat(**wanted).to_ndarray()
    else:
        pixels = frame.reformat(**wanted, **matrix).to_ndarray()
    if high:
        pixels = to_standard_range(pixels, transfer)
    return np.ascontiguousarray(_upright(pixels, frame))


def without_combs(pixels):
    """An interlaced picture, whose odd lines are of another moment than the even ones: where something moved in
    between, the mean of the lines beside it takes an odd line's place.

    Args:
        pixels: (height, width, 3) uint8.
    """
    lines = pixels[: len(pixels) - (len(pixels) + 1) % 2].astype(np.int32)  # the last line is an even one
    above, odd, below = lines[:-2:2], lines[1::2], lines[2::2]
    combed = ((odd - above) * (odd - below)).max(-1, keepdims=True) > _COMBED**2
    cleaned = pixels.copy()
    cleaned[1 : 2 * len(odd) : 2] = np.where(combed, (above + below) // 2, odd)
    return cleaned


def _square_size(width, height, aspect):
    aspect = float(aspect or 1)
    if not 1 / _MOST_STRETCH <= aspect <= _MOST_STRETCH:
        return width, height
    return (round(width * aspect), height) if aspect >= 1 else (width, round(height / aspect))


def _upright(pixels, frame):
    matrix = _display_matrix(frame)
    if matrix is None:
        return np.rot90(pixels, round(getattr(frame, "rotation", 0) / 90) % 4)
    # A point of the picture, x to the right and y down, is shown at (a x + c y, b x + d y).
    (a, b), (c, d) = matrix
    if abs(a) + abs(d) >= abs(b) + abs(c):
        flips = a < 0, d < 0
    else:
        pixels, flips = pixels.swapaxes(0, 1), (c < 0, b < 0)
    return pixels[:: -1 if flips[1] else 1, :: -1 if flips[0] else 1]


def _display_matrix(frame):
    """((a, b), (c, d)) of the frame's display matrix, None where it has none."""
    from av.sidedata.sidedata import Type

    try:
        data = frame.side_data.get(Type.DISPLAYMATRIX)
    except ValueError:  # PyAV 18 and its side data of a kind that it does not know, such as EXIF
        return None
    if data is None:
        return None
    numbers = np.frombuffer(bytes(data), dtype=np.int32)
    return None if numbers.size < 9 else (tuple(map(int, numbers[0:2])), tuple(map(int, numbers[3:5])))
