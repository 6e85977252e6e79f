"""A job: its checks, its defaults, and what its digest sees."""

import dataclasses
import math

import pytest

from dicetalk.errors import InputError
from dicetalk.job import Job, defaults

FILES = {"portrait": "a.png", "audio": "a.wav", "output": "a.mp4"}


def test_defaults():
    job = Job(**FILES)
    assert (job.emotion, job.fps, job.size, job.seed) == ("neutral", "25", 512, 0)
    assert (job.steps, job.sampler, job.reference_scale, job.emotion_scale) == (None,) * 4, "the checkpoint's own"
    assert job.clip is None and job.face_choice is None


def test_a_job_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Job(**FILES).seed = 1


def test_values_as_a_table_has_them():
    row = FILES | {"seed": "7", "start": "1.5", "crop": "yes", "fps": 12.5, "length": "", "checkpoint": None}
    assert Job.of(row) == Job(**FILES, seed=7, start=1.5, crop=True, fps="12.5")
    floats = FILES | {"seed": "7.0", "crop": "1.0", "fps": "25.0", "meter": 0.0, "size": " 64.00 "}
    assert Job.of(floats) == Job(**FILES, seed=7, crop=True, fps="25", size=64)
    assert Job.of(FILES | {"seed": f"{2**62 + 1}.0"}).seed == 2**62 + 1


def test_a_speed_sets_what_is_not_given():
    fast = Job.of(FILES | {"speed": "fast", "deep_cache": "1"})
    assert (fast.steps, fast.sampler, fast.schedule, fast.deep_cache) == (12, "euler", "karras", 1)
    assert fast.speed is None  # not quite
    assert Job.of(FILES | {"speed": "draft"}).speed == "draft"
    assert Job.of(FILES).speed == Job.of(FILES | {"speed": "published"}).speed == "published"
    assert Job.of(FILES) == Job.of(FILES | {"speed": "published"}) != Job.of(FILES | {"steps": 25})
    assert Job.of(FILES | {"steps": 25, "sampler": "euler"}).speed == "published"
    with pytest.raises(InputError, match="speed is quick: give published, fast, draft"):
        Job.of(FILES | {"speed": "quick"})


def test_guidance_everywhere_is_no_interval():
    assert Job(**FILES).guidance_interval is None
    assert Job(**FILES, guidance_from=100, guidance_to=0.5).guidance_interval == (0.5, 100.0)


def test_paths_are_text(tmp_path):
    assert Job(**FILES | {"portrait": tmp_path / "a.png"}).portrait == str(tmp_path / "a.png")


def test_a_face_may_be_a_side_or_a_number():
    assert Job(**FILES, face="Left").face_choice == "left"
    assert Job(**FILES, face=2).face_choice == 2


def test_a_box_may_be_numbers():
    job = Job(**FILES, face=(180, 60.5, 320, 250))
    assert job.face == "180,60.5,320,250" and job.face_choice == (180, 60.5, 320, 250)


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("seed", -1, "seed is -1: give a whole number from 0"),
        ("seed", 1.5, "seed is 1.5: give a whole number"),
        ("seed", "x", "seed is x: give a whole number"),
        ("seed", True, "seed is True: give a whole number"),
        ("steps", 0, "steps is 0"),
        ("size", 63, "size is 63: give 64 to 2048 pixels"),
        ("margin", math.inf, "margin is inf"),
        ("margin", math.nan, "margin is nan"),
        ("emotion_scale", 21, "emotion_scale is 21: give a number from 0 to 20"),
        ("speech_strength", 2.1, "speech_strength is 2.1: give a number from 0 to 2"),
        ("speech_strength", None, "speech_strength is None"),
        ("length", 0, "length is 0: give more than 0"),
        ("guidance_reuse", 0, "guidance_reuse is 0: give 1, every step, to 10"),
        ("deep_cache", 2.5, "deep_cache is 2.5: give 1, every step, to 10"),
        ("guidance_from", -1, "guidance_from is -1: give a sigma from 0 to 1000"),
        ("guidance_to", 1001, "guidance_to is 1001: give a sigma from 0 to 1000"),
        ("sampler", "heun", "sampler is heun: give euler, dpmpp_2m or lcm"),
        ("schedule", "simple", "schedule is simple: give karras or align_your_steps"),
        ("fps", 24, "fps is 24: give 12.5 or 25"),
        ("dtype", "int8", "dtype is int8: give float32, float16 or bfloat16"),
        ("crop", "perhaps", "crop is perhaps: give true or false"),
        ("face", "1,2,3", "face is 1,2,3: give four numbers in pixels"),
        ("portrait", 1j, "portrait is 1j: give text"),
        ("portrait", (), "portrait is \\(\\): give text"),
        ("portrait", "a\0", "which has characters that no file has"),
        ("portrait", "\ud800", "which has characters that no file has"),
        ("seed", "7.5", "seed is 7.5: give a whole number"),
    ],
)
def test_what_cannot_be_meant_is_refused(field, value, words):
    with pytest.raises(InputError, match=words.replace(".", "[.]")):
        Job(**FILES | {field: value})


def test_an_interval_of_guidance_falls():
    with pytest.raises(InputError, match="guidance_to is 5, above guidance_from, 2"):
        Job(**FILES, guidance_from=2, guidance_to=5)


def test_errors_use_the_callers_names():
    with pytest.raises(InputError, match="column Seed is x"):
        Job.of(FILES | {"seed": "x"}, named=lambda name: f"column {name.title()}")


def test_an_unknown_and_a_missing_field_are_named():
    with pytest.raises(InputError, match="emotoin is no setting of a clip: there are portrait, video, audio"):
        Job.of(FILES | {"emotoin": "sad"})
    with pytest.raises(InputError, match="audio is missing"):
        Job.of({"portrait": "a.png", "output": "a.mp4"})


def test_the_options_of_a_clip_need_a_clip(tmp_path):
    for name in ("a.png", "a.wav"):
        (tmp_path / name).write_bytes(b"1")
    files = {field: tmp_path / name for field, name in FILES.items()}
    with pytest.raises(InputError, match="landmarks sets how a clip is read, and emotion names none"):
        Job(**files, landmarks="x.csv").check_files()
    Job(**files).check_files()


@pytest.fixture
def files(tmp_path):
    (tmp_path / "a.png").write_bytes(b"picture")
    (tmp_path / "a.wav").write_bytes(b"sound")
    return {"portrait": tmp_path / "a.png", "audio": tmp_path / "a.wav", "output": tmp_path / "a.mp4"}


def test_the_digest_is_of_what_the_clip_is_made_from(files, tmp_path):
    first = Job(**files).digest()
    assert Job(**files | {"output": tmp_path / "b.mp4"}, device="cpu", compile=True).digest() == first
    for field, name in defaults().items():
        other = {"seed": 1, "emotion": "sad", "checkpoint": "x", "fps": "12.5", "dtype": "float16", "face": "1,2,3,4"}
        if field in other:
            assert Job(**files, **{field: other[field]}).digest() != first, field
        elif isinstance(name, bool) and field not in ("timeline", "compile"):
            assert Job(**files, **{field: not name}).digest() != first, field
    (tmp_path / "a.wav").write_bytes(b"other sound")
    assert Job(**files).digest() != first


def test_the_digest_sees_what_is_in_a_clip_and_its_landmarks(files, tmp_path):
    clip, landmarks = tmp_path / "clip.mp4", tmp_path / "face.csv"
    clip.write_bytes(b"clip")
    landmarks.write_bytes(b"face")
    given = files | {"emotion": f"clip:{clip}", "landmarks": landmarks}
    first = Job(**given).digest()
    landmarks.write_bytes(b"another")
    second = Job(**given).digest()
    clip.write_bytes(b"another")
    assert len({first, second, Job(**given).digest()}) == 3


def test_settings_name_files_without_their_folders(tmp_path):
    files = {name: str(tmp_path / file) for name, file in FILES.items()}
    job = Job(**files, emotion=f"clip:{tmp_path}/c.mp4", landmarks=tmp_path / "f.csv")
    assert str(tmp_path) not in str(job.settings())
    assert job.settings()["emotion"] == "clip:c.mp4" and job.settings()["landmarks"] == "f.csv"
    assert "embedder" not in Job(**files).settings()
