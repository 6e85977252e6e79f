import numpy as np
import pytest
from clips import face, film, prototype

from dicetalk.emotion.options import NAMES
from dicetalk.reading.clip import BLENDSHAPES
from dicetalk.reading.face_actions import FEATURES, PROTOTYPES, features, probabilities, without_rest


def read(rows, seconds=0.0):
    return probabilities(without_rest(features(rows), seconds))


def test_the_prototypes_are_of_the_eight_and_of_known_units():
    assert set(PROTOTYPES) == set(NAMES)
    for prototypes in PROTOTYPES.values():
        for units in prototypes:
            assert units == "one side" or all(unit in FEATURES for unit in units.split())


@pytest.mark.parametrize(
    "emotion, units", [(emotion, units) for emotion, several in PROTOTYPES.items() for units in several]
)
@pytest.mark.parametrize("strength", [0.6, 0.8, 1.0])
def test_each_prototype_reads_as_its_emotion(emotion, units, strength):
    random = np.random.default_rng(1)
    rows = prototype(units, strength) + random.uniform(0, 0.08, (20, 52))
    shares = read(rows)
    assert np.allclose(shares.sum(1), 1) and (shares.argmax(1) == NAMES.index(emotion)).all()


def test_contempt_is_one_sided_whichever_side_and_a_smile_is_not():
    for side in ("Left", "Right"):
        for movement in ("mouthSmile", "mouthDimple"):
            shares = read(face(**{movement + side: 0.6})[None])[0]
            assert NAMES[shares.argmax()] == "contempt"
    assert NAMES[read(face(mouthSmileLeft=0.7, mouthSmileRight=0.6)[None])[0].argmax()] == "happy"


def test_talking_alone_is_neutral():
    talk = face(jawOpen=0.35, mouthFunnel=0.3, mouthLowerDownLeft=0.2, mouthLowerDownRight=0.2)
    assert NAMES[read(talk[None])[0].argmax()] == "neutral"


def test_a_still_reads_the_same_however_long_it_is_held():
    smile = face(AU12=0.6, AU7=0.4)
    once, minute = read(smile[None], 0.5)[0], read(np.tile(smile, (120, 1)), 60.0)
    np.testing.assert_allclose(minute, np.tile(once, (120, 1)))


def test_who_smiles_all_the_time_is_still_smiling():
    random = np.random.default_rng(0)
    rows = face(AU12=0.7, AU6=0.5) + random.uniform(0, 0.3, (200, 1)) * face(AU26=1.0)
    assert (read(rows, 100.0).argmax(1) == NAMES.index("happy")).all()


def test_a_persons_own_rest_is_learned_from_a_clip_that_moves():
    frowner = face(browDownLeft=0.3, browDownRight=0.3, eyeSquintLeft=0.45, eyeSquintRight=0.45)
    rows = np.tile(frowner, (200, 1))
    rows[150:] = np.maximum(frowner, face(AU12=0.9))
    neutral = NAMES.index("neutral")
    alone, in_clip = read(frowner[None])[0], read(rows, 100.0)[0]
    assert in_clip[neutral] > 0.7 and in_clip[neutral] > alone[neutral] + 0.1


def test_frames_without_a_face_stay_empty():
    shares = read(film((0.2, face(AU12=0.8)), (0.2, None)))
    assert not np.isnan(shares[:5]).any() and np.isnan(shares[5:]).all()


def test_values_out_of_range_are_clipped():
    wild = face(AU12=7.0)
    wild[BLENDSHAPES.index("jawOpen")] = -3
    np.testing.assert_allclose(read(wild[None]), read(face(AU12=1.0)[None]))
