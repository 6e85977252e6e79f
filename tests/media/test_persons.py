"""Several persons in one picture: which faces, and a crop for each."""

import numpy as np
import pytest
from PIL import Image

from dicetalk.errors import InputError
from dicetalk.media import persons
from dicetalk.media.persons import prepare_persons

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 400, 3), np.uint8))
LEFT, MIDDLE, RIGHT = (40.0, 60.0, 100.0, 130.0), (170.0, 60.0, 230.0, 130.0), (300.0, 60.0, 360.0, 130.0)


@pytest.fixture
def found(monkeypatch):
    """Has these faces found; gives the searches."""
    searches = []

    def set_faces(*boxes):
        monkeypatch.setattr(persons, "faces_from_left", lambda image, least: searches.append(image) or list(boxes))
        return searches

    return set_faces


def boxes(prepared):
    return [each.face_box for each in prepared]


def test_faces_are_taken_from_the_left_or_as_they_are_named(found):
    found(LEFT, MIDDLE, RIGHT)
    assert boxes(prepare_persons(PICTURE, 3, "", 64)) == [LEFT, MIDDLE, RIGHT]
    assert boxes(prepare_persons(PICTURE, 2, "right; 1", 64)) == [RIGHT, LEFT]
    assert boxes(prepare_persons(PICTURE, 2, "2; 300,60,360,130", 64)) == [MIDDLE, RIGHT]


def test_boxes_need_no_search(found):
    searches = found()
    made = prepare_persons(PICTURE, 2, "40,60,100,130; 300,60,360,130", 64)
    assert boxes(made) == [LEFT, RIGHT] and searches == []
    assert [each.image.size for each in made] == [(64, 64)] * 2
    assert "Person 2 is at 300,60,360,130" in made[1].notes[0]


def test_no_crop_reaches_into_another_ones_face(found):
    found(LEFT, MIDDLE, RIGHT)
    near = prepare_persons(PICTURE, 3, "", 64, margin=3.0)
    far = prepare_persons(PICTURE, 1, "1", 64, margin=3.0)
    for person, others in ((0, (MIDDLE, RIGHT)), (1, (LEFT, RIGHT)), (2, (LEFT, MIDDLE))):
        x1, y1, x2, y2 = near[person].crop_box
        own = near[person].face_box
        assert x1 <= own[0] and y1 <= own[1] and x2 >= own[2] and y2 >= min(own[3], y1 + x2 - x1)
        assert all(x2 <= other[0] - 3 or x1 >= other[2] + 3 for other in others)
    assert near[0].crop_box[2] - near[0].crop_box[0] < far[0].crop_box[2] - far[0].crop_box[0]


@pytest.mark.parametrize(
    "count, faces, words",
    [
        (2, "", "image has 3 faces that were found, and there are 2 persons: .* Found: 40,60,100,130; 170,"),
        (2, "1; 4", "faces asks for 4, and 3 were found"),
        (2, "1; left", "faces names one face twice, as 1 and as 2"),
        (2, "1", "faces names 1 and there are 2 persons"),
        (2, "1; nobody", "faces is nobody: give four numbers"),
        (2, "40,60,100,130; 90,60,150,130", "face of person 1 is too near to another one"),
    ],
)
def test_what_cannot_be_chosen_is_said(found, count, faces, words):
    found(LEFT, MIDDLE, RIGHT)
    with pytest.raises(InputError, match=words):
        prepare_persons(PICTURE, count, faces, 64, name="image")
