import json

import numpy as np
import pytest
import torch
from classifier_folders import write_image_classifier, write_voice_classifier
from clips import SAMPLE_RATE, face_clip, prototype, sound, voice
from emotions import make_priors
from PIL import Image
from project import DEMO

from dicetalk.emotion.options import NAMES
from dicetalk.emotion.words import FORMS, NEAR
from dicetalk.errors import InputError
from dicetalk.reading.classifiers import Classifier, emotion_of, face_picture, map_labels, to_emotions
from dicetalk.reading.clip import Clip
from dicetalk.reading.evidence import Evidence
from dicetalk.reading.faces import FaceChoice

PORTRAIT = DEMO / "portrait.jpg"
DATASETS = {
    "FER2013": "angry disgust fear happy neutral sad surprise",
    "AffectNet": "Neutral Happiness Sadness Surprise Fear Disgust Anger Contempt",
    "RAVDESS": "neutral calm happy sad angry fearful disgust surprised",
    "CREMA-D": "ANG DIS FEA HAP NEU SAD",
    "MEAD": "angry contempt disgusted fear happy neutral sad surprised",
    "IEMOCAP": "ang hap exc sad neu fru",
}


def column(name):
    return NAMES.index(name)


@pytest.fixture(scope="module")
def face_model(tmp_path_factory):
    return write_image_classifier(tmp_path_factory.mktemp("face"), DATASETS["FER2013"].split(), "happy")


@pytest.fixture(scope="module")
def voice_model(tmp_path_factory):
    return write_voice_classifier(tmp_path_factory.mktemp("voice"), DATASETS["IEMOCAP"].split(), "fru")


@pytest.fixture(scope="module")
def portrait():
    return np.asarray(Image.open(PORTRAIT).convert("RGB"))


# Labels


@pytest.mark.parametrize("labels", DATASETS.values(), ids=DATASETS)
def test_the_labels_of_known_datasets_are_all_mapped(labels):
    assert (map_labels(labels.split()).sum(1) == 1).all()


def test_synonyms_belong_to_one_emotion_each():
    assert set(FORMS) == set(NEAR) == set(NAMES)
    words = [*NAMES, *(word for table in (FORMS, NEAR) for line in table.values() for word in line.split())]
    assert len(words) == len(set(words)) and all(word == word.casefold() for word in words)


def test_labels_in_two_languages():
    """As emotion2vec writes them."""
    labels = "生气/angry 厌恶/disgusted 恐惧/fearful 开心/happy 中立/neutral 其他/other 难过/sad 吃惊/surprised <unk>"
    named = [emotion_of(label) for label in labels.split()]
    assert named == ["angry", "disgusted", "fear", "happy", "neutral", None, "sad", "surprised", None]
    assert [emotion_of(label) for label in ("suprise", "Freude", "радость")] == ["surprised", "happy", "happy"]


def test_labels_are_read_past_numbers_and_case():
    matrix = map_labels(["0_Anger", " Happy ", "no_emotion", "bored"])
    assert [row.argmax() if row.any() else None for row in matrix] == [column("angry"), column("happy"), 5, None]


@pytest.mark.parametrize("labels", [["cat", "dog"], ["LABEL_0", "LABEL_1"], ["happy", "joy", "other"], []])
def test_a_model_of_other_things_is_refused(labels):
    with pytest.raises(InputError, match="/models/cats: its labels are no emotions.*id2label"):
        map_labels(labels, "/models/cats")


def test_a_model_moves_only_what_it_knows():
    matrix = map_labels(DATASETS["FER2013"].split())
    told = to_emotions([[0, 0, 0, 1, 0, 0, 0]], matrix)[0]
    assert told.sum() == pytest.approx(1) and told[column("sad")] == 0
    assert told[column("contempt")] == pytest.approx(1 / 8) and told[column("happy")] > 0.85
    even = to_emotions(np.full((1, 7), 1 / 7), matrix)[0]
    np.testing.assert_allclose(even, 1 / 8)


def test_synonyms_add_up_and_other_labels_make_unsure():
    labels = ["happy", "excited", "sad", "neutral", "bored"]
    matrix = map_labels(labels)
    told = to_emotions([[0.4, 0.4, 0.1, 0.1, 0]], matrix)[0]
    assert told[column("happy")] == pytest.approx(3 / 8 * 0.8)
    np.testing.assert_allclose(to_emotions([[0, 0, 0, 0, 1]], matrix)[0], 1 / 8)
    sure, unsure = to_emotions([[1, 0, 0, 0, 0], [0.3, 0, 0, 0, 0.7]], matrix)
    assert unsure[column("happy")] < sure[column("happy")]


# Folders


def test_a_face_model_reads_the_face_in_pictures(face_model, portrait):
    clip = Clip(frames=lambda every: iter([(0.0, portrait)]), name="portrait.jpg")
    reading = Evidence(face_model=face_model).read(clip, make_priors())
    assert list(reading.tracks) == ["face", "combined"]
    assert NAMES[reading.weights["face"].argmax()] == "happy" and reading.weights["face"].max() > 0.8


def test_pictures_without_a_face_leave_gaps(face_model, portrait):
    grey = np.full((64, 64, 3), 128, np.uint8)
    clip = Clip(frames=lambda every: iter([(0.0, portrait), (0.5, grey)]))
    reading = Evidence(face_model=face_model).read(clip, make_priors())
    assert np.isnan(reading.tracks["face"]).any(1).tolist() == [False, True]
    assert "No face was found in the pictures in 0.5 of 1 s." in reading.notes
    with pytest.raises(InputError, match="No face was found in the pictures"):
        Evidence(face_model=face_model).read(Clip(frames=lambda every: iter([(0.0, grey)])), make_priors())


def test_the_largest_face_is_cut_out(portrait):
    beside = np.full((portrait.shape[0], portrait.shape[1] // 2, 3), 200, np.uint8)
    small = np.asarray(Image.fromarray(portrait).resize((beside.shape[1], beside.shape[0] // 2)))
    beside[: small.shape[0]] = small
    both = np.concatenate([beside, portrait], axis=1)
    alone, found = (face_picture(picture, 0.0, FaceChoice()) for picture in (portrait, both))
    assert alone.width == pytest.approx(found.width, rel=0.15) and found.width > 0.2 * portrait.shape[1]


def test_the_face_that_was_followed_is_cut_out_though_another_is_larger_now(face_model, portrait):
    def two(left, right):
        """A person in grey and one in blue, of these widths, their faces in place."""
        picture = Image.new("RGB", (1000, 600), "white")
        for centre, side, blue in ((250, left, False), (750, right, True)):
            person = Image.fromarray(portrait).convert("L").resize((side, side))
            person = Image.merge("RGB", [person.point(lambda value: value // 2), person, person]) if blue else person
            picture.paste(person, (centre - side // 2, 300 - side // 2))
        return np.asarray(picture)

    frames = [two(450, 400), two(400, 450)]
    choice = FaceChoice()
    colours = [np.asarray(face_picture(frame, 0.5 * at, choice)).mean((0, 1)) for at, frame in enumerate(frames)]
    assert all(np.ptp(colour) < 5 for colour in colours), "the one in grey"
    assert np.ptp(np.asarray(face_picture(frames[1], 0.5, FaceChoice())).mean((0, 1))) > 20
    clip = Clip(frames=lambda every: iter((0.5 * at, frame) for at, frame in enumerate(frames)))
    reading = Evidence(face_model=face_model).read(clip, make_priors())
    assert "2 frames show several faces; the largest was followed." in reading.notes


def test_a_voice_model_takes_the_place_of_prosody(voice_model):
    samples = np.concatenate([voice(4.0), np.zeros(6 * SAMPLE_RATE, np.float32)])
    reading = Evidence(voice_model=voice_model).read(Clip(audio=sound(samples)), make_priors())
    assert NAMES[reading.weights["voice"].argmax()] == "angry" and not any("aroused" in note for note in reading.notes)
    assert not np.isnan(reading.tracks["voice"][0]).any() and np.isnan(reading.tracks["voice"][-1]).all()


def test_face_and_voice_models_and_landmarks_together(face_model, voice_model, portrait):
    clip = face_clip((2, prototype("6 12", 0.8)), frames=lambda every: iter([(0.0, portrait)]), audio=sound(voice(2.0)))
    reading = Evidence(face_model, voice_model).read(clip, make_priors())
    assert list(reading.tracks) == ["face", "voice", "combined"]
    assert NAMES[reading.weights["combined"].argmax()] == "happy"
    assert reading.weights["combined"][column("angry")] > reading.weights["face"][column("angry")]


def test_models_for_another_rate_get_that_rate(tmp_path):
    folder = write_voice_classifier(tmp_path, ["happy", "sad"], "sad")
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sampling_rate": 8000}))
    classifier, lengths = Classifier(folder, "audio"), []
    keep = classifier.preprocess
    classifier.preprocess = lambda samples, **more: (
        lengths.append((len(samples), more["sampling_rate"])) or keep(samples, **more)
    )
    classifier.preprocess.sampling_rate = 8000
    assert classifier.voice(voice(1.0)).argmax() == column("sad") and lengths == [(8000, 8000)]


def test_only_safetensors_are_read(tmp_path, face_model):
    import shutil

    folder = tmp_path / "pickled"
    shutil.copytree(face_model, folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickled: it holds no .safetensors"):
        Classifier(folder, "image")


def test_code_in_a_folder_is_never_run(tmp_path, face_model):
    import shutil

    folder, trace = tmp_path / "own", tmp_path / "trace"
    shutil.copytree(face_model, folder)
    (folder / "own.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass Own: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForImageClassification": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="own: not a usable image-classification model"):
        Classifier(folder, "image")
    assert not trace.exists()


@pytest.mark.parametrize("broken", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_broken_folders_are_told(tmp_path, face_model, broken):
    import shutil

    folder = tmp_path / "broken"
    shutil.copytree(face_model, folder)
    (folder / broken).write_text("{")
    with pytest.raises(InputError, match=f"{folder}: not a usable image-classification model") as caught:
        Classifier(folder, "image")
    assert "\n" not in str(caught.value)


def test_weights_that_do_not_fill_the_model_are_told(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = write_image_classifier(tmp_path, ["happy", "sad"])
    weights = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "classifier" not in k}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(InputError, match="its weights lack classifier"):
        Classifier(folder, "image")


def test_a_folder_that_is_not_there_and_one_of_the_other_kind(tmp_path, face_model):
    with pytest.raises(InputError, match="nowhere: no model folder"):
        Classifier(tmp_path / "nowhere", "image")
    with pytest.raises(InputError, match="not a usable audio-classification model"):
        Classifier(face_model, "audio")


def test_models_of_something_else_are_refused_before_the_clip_is_read(tmp_path):
    folder = write_image_classifier(tmp_path, ["cat", "dog"])
    clip = Clip(frames=lambda every: iter([]), blendshapes=lambda: pytest.fail("the clip was read"))
    with pytest.raises(InputError, match="its labels are no emotions"):
        Evidence(face_model=folder).read(clip, make_priors())


@pytest.mark.parametrize(
    "label, emotion",
    [
        *(("OAF_angry", "angry"), ("YAF_pleasant_surprised", "surprised"), ("OAF_Pleasant_surprise", "surprised")),
        *(("female_happy", "happy"), ("male_fearful", "fear"), ("MALE_CALM", "neutral"), ("femalesad", "sad")),
        *(("03-happy", "happy"), ("happy (strong)", "happy"), ("emotion: disgust", "disgusted"), ("F_ang", "angry")),
        *(("unhappy", "sad"), ("no emotion", "neutral"), ("not happy", None), ("happy or sad", None)),
        *(("bored", None), ("LABEL_0", None), ("female", None), ("", None), (3, None)),
    ],
)
def test_a_label_may_say_more_than_the_emotion(label, emotion):
    assert emotion_of(label) == emotion
