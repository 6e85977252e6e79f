"""Pictures of a video as they are meant to be seen, through files of every geometry and colour."""

from fractions import Fraction

import av
import numpy as np
import pytest

from dicetalk.media.tone import HLG, PQ, to_standard_range
from dicetalk.reading.streams import stream_frames

RED, GREEN, BLUE, GREY = (200, 30, 30), (30, 160, 30), (30, 30, 200), (128, 128, 128)


def corners(width=96, height=64):
    """Red, green, blue and grey from the top left corner on, row by row."""
    picture = np.empty((height, width, 3), np.uint8)
    for number, colour in enumerate((RED, GREEN, BLUE, GREY)):
        row, column = divmod(number, 2)
        picture[row * height // 2 :, column * width // 2 :] = colour
    return picture


def write(path, pixels, codec="libx264", pix_fmt="yuv420p", matrix=None, **settings):
    """One picture as a video; `matrix` is the number that its colours are converted by."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=5)
        stream.height, stream.width = pixels.shape[:2]
        stream.pix_fmt = pix_fmt
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        source = av.VideoFrame.from_ndarray(pixels, format="rgb24" if pixels.dtype == np.uint8 else "rgb48le")
        frame = source.reformat(format=pix_fmt, dst_colorspace=matrix or 5)
        for name in ("color_trc", "color_primaries", "colorspace"):
            if name in settings and hasattr(frame, name):
                setattr(frame, name, settings[name])
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def seen(path):
    ((_, picture),) = list(stream_frames(path))
    return picture


def with_matrix(path, a, b, c, d):
    """The MP4 with another display matrix in its track's header."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = np.array([a, b, 0, c, d, 0, 0, 0, 2**30], ">i4").tobytes()
    for place in (0, 4, 12, 16):
        number = int.from_bytes(data[at + place : at + place + 4], "big", signed=True)
        data[at + place : at + place + 4] = (number * 65536).to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "matrix, meant",
    [
        ((1, 0, 0, 1), lambda shown: shown),
        ((-1, 0, 0, 1), lambda shown: shown[:, ::-1]),
        ((1, 0, 0, -1), lambda shown: shown[::-1]),
        ((-1, 0, 0, -1), lambda shown: shown[::-1, ::-1]),
        ((0, 1, -1, 0), lambda shown: np.rot90(shown, -1)),
        ((0, -1, 1, 0), lambda shown: np.rot90(shown)),
        ((0, 1, 1, 0), lambda shown: shown.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda shown: shown[::-1, ::-1].swapaxes(0, 1)),
    ],
    ids=["upright", "mirrored", "flipped", "180", "90 right", "90 left", "mirrored 90 left", "mirrored 90 right"],
)
def test_turned_and_mirrored_videos_are_upright(tmp_path, matrix, meant):
    path = with_matrix(write(tmp_path / "phone.mp4", corners()), *matrix)
    expected = meant(corners())
    picture = seen(path)
    assert picture.shape == expected.shape
    np.testing.assert_allclose(picture[8::16, 8::16], expected[8::16, 8::16], atol=12)


@pytest.mark.parametrize(
    "size, aspect, meant",
    [
        ((720, 576), Fraction(64, 45), (1024, 576)),  # PAL, widescreen
        ((720, 576), Fraction(16, 15), (768, 576)),  # PAL
        ((1440, 1080), Fraction(4, 3), (1920, 1080)),  # HDV, AVCHD
        ((720, 480), Fraction(8, 9), (720, 540)),  # NTSC
        ((640, 360), Fraction(1, 1), (640, 360)),
    ],
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_pixels_that_are_not_square_become_so(tmp_path, size, aspect, meant, suffix):
    path = write(tmp_path / f"tape.{suffix}", corners(*size), sample_aspect_ratio=aspect)
    assert seen(path).shape == (meant[1], meant[0], 3)


@pytest.mark.parametrize("matrix", [1, 5, 9], ids=["BT.709", "BT.601", "BT.2020"])
def test_the_colour_matrix_of_the_file_is_used(tmp_path, matrix):
    path = write(tmp_path / "clip.mkv", corners(), "ffv1", "yuv444p", matrix, colorspace=matrix)
    np.testing.assert_allclose(seen(path), corners(), atol=4)


def pq(light):
    """Recommendation BT.2100, table 4: cd/m² as a signal of 0 to 1."""
    power = (np.asarray(light) / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


@pytest.mark.parametrize("transfer, grey, white", [(PQ, 0.38, 0.58), (HLG, 0.38, 0.75)], ids=["PQ", "HLG"])
def test_high_dynamic_range_is_tone_mapped(tmp_path, transfer, grey, white):
    """BT.2408, table 1, gives the signals of an 18 % grey card and of reference white."""
    signal = np.zeros((64, 96, 3), np.uint16)
    signal[:, 32:64], signal[:, 64:] = round(65535 * grey), round(65535 * white)
    settings = {"color_trc": transfer, "color_primaries": 9, "colorspace": 9}
    path = write(tmp_path / "hdr.mkv", signal, "ffv1", "yuv420p10le", 9, **settings)
    picture = seen(path).astype(int)
    assert picture[:, 8:24].max() <= 3
    assert 100 <= picture[:, 40:56].mean() <= 125, "what a grey card has in a standard picture"
    assert 220 <= picture[:, 72:88].mean() <= 245, "white, with some room for highlights"


def test_wide_gamut_colours_become_those_of_bt_709():
    red = 100 * np.array([0.6274, 0.0691, 0.0164])  # BT.709's red of 100 cd/m² in BT.2020's primaries, BT.2087
    pixels = np.rint(65535 * pq(red)).astype(np.uint16)[None, None]
    value = to_standard_range(pixels, PQ)[0, 0]
    assert value[0] > 170 and value[1:].max() < 12


def test_the_brightest_highlight_is_white():
    pixels = np.full((2, 2, 3), 65535, np.uint16)
    for transfer in (PQ, HLG):
        assert to_standard_range(pixels, transfer).min() >= 254


def moving_bar(shift):
    picture = np.full((576, 720, 3), 90, np.uint8)
    picture[150:450, 200 + shift : 320 + shift] = 200, 170, 150
    picture[::64] = 140  # thin lines, on even lines alone
    return picture


def combs(pixels):
    pixels = pixels.astype(int)
    return np.abs(2 * pixels[1:-1] - pixels[:-2] - pixels[2:]).mean()


@pytest.mark.parametrize(
    "name, codec, settings",
    [
        ("tape.avi", "dvvideo", {}),
        ("camera.mpg", "mpeg2video", {"flags": "+ildct+ilme", "b": "8M"}),
        ("camera.mp4", "libx264", {"flags": "+ildct", "crf": "5", "x264-params": "tff=1"}),
    ],
)
def test_interlaced_video_has_no_combs(tmp_path, name, codec, settings):
    """The odd lines are of another moment; what stays where it is keeps its lines."""
    both = moving_bar(0)
    both[1::2] = moving_bar(24)[1::2]
    read = []
    for pixels in (both, moving_bar(0)):
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream(codec, rate=25, options=settings)
            stream.width, stream.height, stream.pix_fmt = 720, 576, "yuv420p"
            for frame in (av.VideoFrame.from_ndarray(pixels, format="rgb24"), None):
                container.mux(stream.encode(frame))
        read.append(next(frame for _, frame in stream_frames(tmp_path / name)))
    assert combs(both) > 8 and combs(read[0]) < 3.2 and combs(moving_bar(0)) < 2.9
    assert abs(combs(read[1]) - combs(moving_bar(0))) < 0.5
