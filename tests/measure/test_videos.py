"""Measuring any videos by what the user supplies: labels from folders and tables, means by emotion, FID and FVD."""

import json
import sys

import numpy as np
import pytest

from dicetalk import cli
from dicetalk.errors import InputError
from dicetalk.measure.videos import Supplied, Video, find_videos, markdown, measure_videos, supplied_function
from dicetalk.media.video import write_video

MODULE = """
import numpy as np
def embed(frames):
    return np.concatenate([frames.mean((1, 2)), np.ones((len(frames), 1))], 1)
def colour(frames):
    return frames.mean((1, 2))
def clip(frames):
    return frames.mean((0, 1, 2))
def lips(frames, fps, sound):
    return {"LSE-C": float(len(frames)), "seconds": len(sound) / 16000}
def flat(frames):
    return np.zeros(3)
"""


def grey(path, level, frames=6, size=32):
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(level)
    pictures = [np.clip(level + random.normal(0, 6, (size, size, 3)), 0, 255).astype(np.uint8) for _ in range(frames)]
    write_video(path, pictures, 12.5, np.zeros(frames * 1280, np.float32))


@pytest.fixture
def functions(tmp_path, monkeypatch):
    (tmp_path / "own_models.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield lambda name: supplied_function(f"own_models:{name}", "--identity")
    sys.modules.pop("own_models", None)


def test_labels_come_from_the_names_of_folders_and_files(tmp_path):
    for name in ("happy/level_2/a.mp4", "b_sad.mp4", "c.mp4", "note.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "b_sad.png").write_bytes(b"")
    found = {video.video.name: video for video in find_videos(tmp_path)}
    assert set(found) == {"a.mp4", "b_sad.mp4", "c.mp4"}
    assert (found["a.mp4"].emotion, found["a.mp4"].level) == ("happy", 2)
    assert found["b_sad.mp4"].emotion == "sad" and found["b_sad.mp4"].portrait == tmp_path / "b_sad.png"
    assert found["c.mp4"].emotion is None and found["a.mp4"].portrait is None


def test_means_by_emotion_and_level(tmp_path, functions):
    from PIL import Image

    videos = []
    for number, (emotion, level, tone) in enumerate([("happy", 1, 60), ("happy", 2, 60), ("sad", 1, 200)]):
        path = tmp_path / f"{number}.mp4"
        grey(path, tone, frames=4 + number)
        Image.new("RGB", (32, 32), (60, 60, 60)).save(tmp_path / f"{number}.png")
        videos.append(Video(path, portrait=tmp_path / f"{number}.png", emotion=emotion, level=level))

    class Classifier:
        def faces(self, pictures):
            happy = np.mean([np.asarray(picture).mean() for picture in pictures]) < 100
            return np.array([[0, 0, 0, 0, happy, 0, not happy, 0]] * len(pictures), float)

    found = measure_videos(videos, Supplied(Classifier(), functions("embed"), lips=functions("lips")))
    groups = found["groups"]
    assert groups["all"]["videos"] == 3 and groups["happy"]["videos"] == 2
    assert groups["happy"]["emotion accuracy"] == groups["sad"]["emotion accuracy"] == 1
    assert groups["happy"]["identity"] > 0.999 and groups["happy, level 2"]["LSE-C"] == 5
    assert groups["happy"]["LSE-C"] == 4.5 and groups["sad, level 1"]["videos"] == 1
    assert "| happy | 2 | 100.0% |" in markdown(found)
    wrong = measure_videos([Video(videos[0].video, emotion="sad")], Supplied(Classifier()))
    assert wrong["groups"]["all"]["emotion accuracy"] == 0


def test_distances_are_those_of_gaussians(tmp_path, functions):
    pytest.importorskip("torchmetrics")
    for number, tone in enumerate((40, 80, 120)):
        grey(tmp_path / f"real{number}.mp4", tone)
        grey(tmp_path / f"same{number}.mp4", tone)
        grey(tmp_path / f"far{number}.mp4", tone + 100)
    apart = {}
    for kind in ("same", "far"):
        videos = [Video(tmp_path / f"{kind}{n}.mp4", real=tmp_path / f"real{n}.mp4") for n in range(3)]
        found = measure_videos(videos, Supplied(pictures=functions("colour"), clips=functions("clip")))
        apart[kind] = found["fid"], found["fvd"]
        assert "FID" in markdown(found) and "FVD" in markdown(found)
    assert max(apart["same"]) < 5
    assert apart["far"] == pytest.approx((3 * 100**2, 3 * 100**2), rel=0.05)  # the means are 100 apart in each colour


def test_the_command_prints_and_writes(tmp_path, functions, capsys, monkeypatch):
    monkeypatch.setattr(cli, "COMMANDS", ("evaluate",))
    grey(tmp_path / "clips" / "angry" / "a.mp4", 90)
    (tmp_path / "table.csv").write_text("video,emotion,level\nclips/angry/a.mp4,angry,3\n")
    for source in ("clips", "table.csv"):
        arguments = ["evaluate", "--videos", source, "--lips", "own_models:lips", "--output", "out"]
        assert cli.main(arguments) == 0
        assert "| angry | 1 | 6.000 |" in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert record["groups"]["angry, level 3"]["LSE-C"] == 6 and (tmp_path / "out" / "evaluation.md").is_file()


@pytest.mark.parametrize(
    "content, message",
    [
        ("video,tone\na.mp4,loud\n", "row 1: there is no column 'tone'"),
        ("emotion\nhappy\n", "row 1: video is missing"),
        ("video,emotion\na.mp4,bored\n", "row 1: emotion is 'bored'"),
        ("video,emotion,level\na.mp4,sad,9\n", "row 1: level is '9'"),
        ("video\n", "holds no videos"),
    ],
)
def test_wrong_tables_are_named(tmp_path, content, message):
    (tmp_path / "table.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        find_videos(tmp_path / "table.csv")


def test_wrong_functions_are_named(tmp_path, functions):
    grey(tmp_path / "a.mp4", 90)
    for text in ("own_models", "own_models:", "none_such:embed", "own_models:none"):
        with pytest.raises(InputError, match="--lips"):
            supplied_function(text, "--lips")
    with pytest.raises(InputError, match="Nothing was supplied"):
        measure_videos([Video(tmp_path / "a.mp4")], Supplied())
    with pytest.raises(InputError, match="--picture-features gave an array of shape"):
        measure_videos([Video(tmp_path / "a.mp4", real=tmp_path / "a.mp4")], Supplied(pictures=functions("flat")))
    with pytest.raises(InputError, match="--lips gave an array of shape .*finite"):
        measure_videos([Video(tmp_path / "a.mp4")], Supplied(lips=lambda frames, fps, sound: float("nan")))
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match="broken.mp4"):
        measure_videos([Video(tmp_path / "broken.mp4")], Supplied(lips=functions("lips")))


@pytest.mark.parametrize(
    "supplied, message",
    [
        (Supplied(classifier=object()), "--classifier needs a video with its emotion"),
        (Supplied(identity=len), "--identity needs a video with its portrait"),
        (Supplied(pictures=len), "--picture-features needs a table with real videos"),
        (Supplied(clips=len), "--clip-features needs a table with two real videos or more"),
    ],
)
def test_what_could_measure_nothing_is_refused(tmp_path, supplied, message):
    with pytest.raises(InputError, match=message):
        measure_videos([Video(tmp_path / "a.mp4")], supplied)
