"""Drawn faces: people, their expressions, the pictures of them, and where the face is."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dicetalk.drawn import Person, Pose, draw, face_box, lip_gap
from dicetalk.drawn.expression import CLASSES, COLUMN, expression, head, strength
from dicetalk.drawn.face import NEUTRAL
from dicetalk.drawn.splits import people
from dicetalk.emotion.options import NAMES
from dicetalk.errors import InputError
from dicetalk.reading.face_actions import features, probabilities

SHOWN = (  # blendshapes that a drawing shows
    *("browDownLeft", "browInnerUp", "browOuterUpRight", "cheekPuff", "cheekSquintLeft", "eyeBlinkRight"),
    *("eyeLookDownLeft", "eyeLookInLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeSquintLeft", "eyeWideRight"),
    *("jawOpen", "mouthDimpleLeft", "mouthFrownRight", "mouthFunnel", "mouthLeft", "mouthLowerDownLeft"),
    *("mouthPressLeft", "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower"),
    *("mouthSmileLeft", "mouthStretchRight", "mouthUpperUpLeft", "noseSneerLeft"),
)


REST = Pose()


def moved(**values):
    row = NEUTRAL.copy()
    for name, value in values.items():
        row[COLUMN[name]] = value
    return row


def picture(person, row=NEUTRAL, size=64, pose=REST):
    return np.asarray(draw(person, row, pose, size)).astype(int)


def test_a_number_is_always_the_same_person():
    assert Person.of(3) == Person.of(3) != Person.of(4)
    first, again = (draw(Person.of(3), expression(Person.of(3), "happy"), Pose(0.01, 0, 0.05, 1.02)) for _ in range(2))
    assert first.mode == "RGB" and first.size == (64, 64) and first.tobytes() == again.tobytes()


def test_numbers_of_arrays_are_numbers():
    assert Person.of(np.int64(3)) == Person.of(3) and type(Person.of(np.int64(3)).number) is int
    assert draw(Person.of(3), size=np.int64(32)).size == (32, 32)


def test_people_look_different():
    digests = {hashlib.sha256(draw(Person.of(number)).tobytes()).digest() for number in range(40)}
    assert len(digests) == 40
    stack = np.stack([picture(Person.of(number)) for number in range(20)])
    apart = [np.abs(a - b).mean() for place, a in enumerate(stack) for b in stack[place + 1 :]]
    smiles = [np.abs(picture(p, expression(p, "happy")) - picture(p)).mean() for p in map(Person.of, range(20))]
    assert min(apart) > 2 * max(smiles)  # whoever smiles is still nearer to oneself than to anyone else


@pytest.mark.parametrize("name", SHOWN)
def test_each_blendshape_shows(name):
    person = replace(Person.of(3), glasses="none", beard="none")
    changed = np.abs(picture(person, moved(**{name: 1.0}), 128) - picture(person, size=128)).max(2)
    assert (changed > 24).sum() >= 12
    # One side's blendshape moves that half of the face: the person's left is on the right of the picture.
    if name.endswith(("Left", "Right")) and name not in ("mouthLeft", "mouthRight"):
        assert (changed[:, 64:].sum() > 1.5 * changed[:, :64].sum()) == name.endswith("Left")
        assert (changed[:, :64].sum() > 1.5 * changed[:, 64:].sum()) == name.endswith("Right")


def test_emotions_of_unknown_people_are_told_by_a_linear_classifier():
    """Ridge regression on 64 × 64 grey pictures, brightness and contrast evened out: a chance of 1/8."""

    def pictures(split, total):
        random, rows, labels = np.random.default_rng(0), [], []
        for person in map(Person.of, people(split, total)):
            for label, emotion in enumerate(NAMES):
                for level in (None, 1 if emotion == "neutral" else 2):
                    pose = Pose(*random.normal(0, 0.004, 2), random.normal(0, 0.015), random.normal(1, 0.006))
                    grey = picture(person, expression(person, emotion, level), 64, pose).mean(2)[14:58, 10:54]
                    rows.append((grey - grey.mean()) / grey.std())
                    labels.append(label)
        return np.array(rows).reshape(len(rows), -1), np.array(labels)

    learned, labels = pictures("train", 30)
    unknown, truth = pictures("held-out", 10)
    kernel = learned @ learned.T + 300 * np.eye(len(learned))
    answers = unknown @ learned.T @ np.linalg.solve(kernel, np.eye(8)[labels] - 1 / 8)
    accuracy = (answers.argmax(1) == truth).mean()
    print(f"emotions of unknown people: {accuracy:.1%}")
    assert accuracy > 0.8


@pytest.mark.parametrize("emotion, level", CLASSES)
def test_expressions_are_read_as_what_they_are(emotion, level):
    """By the project's own reader of facial actions, for 20 people."""
    rows = np.stack([expression(Person.of(number), emotion, level) for number in range(20)])
    read = probabilities(features(rows)).argmax(1)
    assert (read == NAMES.index(emotion)).mean() >= 0.9
    assert strength(emotion, level) == (0 if emotion == "neutral" else (0.4, 0.65, 0.9)[level - 1])


def test_people_show_an_emotion_in_their_own_manner():
    rows = np.stack([expression(Person.of(number), "angry") for number in range(20)])
    assert (rows.std(0) > 0.03).sum() >= 5
    assert len({Person.of(number).manner.side for number in range(20)}) == 2
    left, right = (COLUMN[f"mouthDimple{side}"] for side in ("Left", "Right"))
    for person in map(Person.of, range(10)):
        row, roll = expression(person, "contempt"), head(person, "contempt").roll
        assert (row[left] > row[right]) == (person.manner.side == "Left") == (roll > 0)


def test_the_face_box_holds_the_face_and_little_else():
    """What features and skin change is inside; its borders are the hairline, the chin and the cheeks."""
    for number in (1, 2, 10, 17):
        person = replace(Person.of(number), beard="none", hair_style="short", skin=(240, 200, 170), hair=(60, 40, 30))
        size = 256
        x1, y1, x2, y2 = face_box(person, size=size)
        plain = picture(person, size=size)
        fear = expression(person, "fear")
        fear[COLUMN["jawOpen"]] = 0
        other = np.abs(picture(person, fear, size) - plain).max(2) > 24
        rows, columns = np.flatnonzero(other.any(1)), np.flatnonzero(other.any(0))
        assert x1 < columns[0] and columns[-1] < x2 and y1 <= rows[0] + 2 and rows[-1] < y2
        # Down the middle: hair, then skin from the hairline on, and the shadow on the neck below the chin.
        middle = plain[:, size // 2]
        skin = np.abs(middle - person.skin).max(1) < 6
        assert abs(np.flatnonzero(skin)[0] - y1) < 10
        below = range(round(y2) - 12, round(y2) + 10)
        chin = next(row for row in below if not skin[row])
        assert abs(chin - y2) < 10
        across = np.abs(plain[round(size * 0.5)] - person.wall).max(1) > 24
        assert abs((x2 - x1) - across.sum()) < 0.18 * size  # the ears stand out


def test_the_face_box_follows_jaw_and_head():
    person, open_ = Person.of(5), moved(jawOpen=1.0)
    still, wide = face_box(person, size=100), face_box(person, open_, size=100)
    assert wide[3] > still[3] + 3 and wide[:3] == still[:3]
    moved_box = face_box(person, NEUTRAL, Pose(0.1, -0.05), 100)
    np.testing.assert_allclose(np.subtract(moved_box, still), (10, -5, 10, -5), atol=0.02)
    both = face_box(person, np.stack([NEUTRAL, open_]), (Pose(), Pose(0.1)), 100)
    assert both[0] == still[0] and both[2] > still[2] + 9 and both[3] == wide[3]
    assert face_box(person, NEUTRAL, Pose(0.9, 0.9), 100)[2:] == (100.0, 100.0)


def test_lips_are_apart_as_the_blendshapes_say():
    assert lip_gap(NEUTRAL) == 0 and lip_gap(moved(jawOpen=0.6)) == pytest.approx(0.6, abs=0.01)
    assert lip_gap(moved(jawOpen=0.6, mouthClose=0.6)) == 0
    assert lip_gap(moved(mouthSmileLeft=1, mouthSmileRight=1)) > 0.1
    assert lip_gap(moved(mouthSmileLeft=1, mouthSmileRight=1, mouthRollLower=0.4)) == 0
    person = replace(Person.of(0), beard="none")
    pictures = [picture(person, moved(jawOpen=jaw), 256) for jaw in (0, 0.3, 0.6, 1)]
    inside = [(np.abs(each - (92, 30, 40)).max(2) < 12).sum() for each in pictures]  # what is behind the teeth
    assert inside == sorted(inside) and inside[3] > inside[2] > inside[1] > inside[0] == 0


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: Person.of(-1), "The person is -1"),
        (lambda: Person.of(2.0), "The person is 2.0"),
        (
            lambda: replace(Person.of(0), hair_style="mohawk"),
            "hair_style of a person is 'mohawk': give one of short, p",
        ),
        (lambda: replace(Person.of(0), glasses="sun"), "give one of none, round, square"),
        (lambda: draw(Person.of(0), size=31), "from 32 to 1024"),
        (lambda: draw(Person.of(0), size=64.0), "from 32 to 1024"),
        (lambda: draw(Person.of(0), np.zeros(51)), "52 finite numbers"),
        (lambda: draw(Person.of(0), np.full(52, np.nan)), "52 finite numbers"),
        (lambda: face_box(Person.of(0), size=2000), "from 32 to 1024"),
        (lambda: expression(Person.of(0), "bored"), "The emotion is .bored.: give one of angry"),
        (lambda: expression(Person.of(0), "happy", 4), "The level of happy is 4: it has 1, 2 or 3"),
        (lambda: expression(Person.of(0), "neutral", 2), "The level of neutral is 2: it has 1 alone"),
    ],
)
def test_wrong_input(wrong, message):
    with pytest.raises(InputError, match=message):
        wrong()


def test_sizes():
    for size in (32, 96, 128, 129, 512):
        assert draw(Person.of(1), size=size).size == (size, size)
    small, large = draw(Person.of(1), size=64), draw(Person.of(1), size=512)
    reduced = np.asarray(large.resize((64, 64), Image.Resampling.BOX)).astype(int)
    assert np.abs(np.asarray(small).astype(int) - reduced).mean() < 6
