"""Emotions from clips on the command line: `emotion from-clip`, and `generate --emotion clip:FILE`."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
from clips import film, prototype, voice, write_video
from PIL import Image
from project import DEMO
from safetensors.numpy import save_file

from dicetalk.checkpoints.priors import load_priors
from dicetalk.cli import main
from dicetalk.emotion.files import load_emotion
from dicetalk.emotion.parsing import parse_emotion
from dicetalk.emotion.timeline import EmotionTimeline
from dicetalk.media.container import read_metadata

SMILE, FROWN = prototype("6 12", 0.8), prototype("1 4 15", 0.8)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A video of 4 s with a voice, and beside it its landmarks: a smile, then a frown."""
    folder = tmp_path_factory.mktemp("clip")
    write_video(folder / "clip.mp4", voice(4.0), seconds=4.0, fps=25)
    np.save(folder / "face.npy", film((2, SMILE), (2, FROWN)))
    np.save(folder / "smile.npy", film((4, SMILE)))
    return folder / "clip.mp4"


@pytest.fixture
def command(tiny_checkpoint, capsys):
    def run(*arguments):
        code = main([*map(str, arguments), "--checkpoint", str(tiny_checkpoint), "--device", "cpu"])
        return code, *capsys.readouterr()

    return run


def test_a_clip_is_read_drawn_and_saved(command, clip, tmp_path, tiny_checkpoint):
    chart, output = tmp_path / "new" / "chart.png", tmp_path / "glad.safetensors"
    code, out, _ = command(
        *("emotion", "from-clip", clip, "--landmarks", clip.with_name("smile.npy")),
        *("--chart", chart, "--output", output),
    )
    assert code == 0 and out.splitlines()[1].split() == ["face", "voice", "combined"]
    assert out.splitlines()[2].startswith("happy") and "how sure" in out
    with Image.open(chart) as image:
        assert image.width > 900
    saved, priors = load_emotion(output), load_priors(tiny_checkpoint / "emotions")
    assert saved.name == "glad" and saved.provenance == "read from clip.mp4"
    written = next(line for line in out.splitlines() if line.startswith("emotion: "))
    assert parse_emotion(written.removeprefix("emotion: "), priors) == saved


def test_a_timeline_and_a_name(command, clip, tmp_path):
    output = tmp_path / "out.safetensors"
    code, out, _ = command(
        *("emotion", "from-clip", clip, "--landmarks", clip.with_name("face.npy"), "--timeline"),
        *("--output", output, "--name", "my friend"),
    )
    timeline = load_emotion(output)
    assert code == 0 and isinstance(timeline, EmotionTimeline) and timeline.name == "my friend"
    assert timeline.keys[0].emotion.name.startswith("moments(happy")
    assert f"a timeline of {len(timeline.keys)} emotions" in out


def test_names_of_files_become_one_line(command, clip, tmp_path):
    recorded = tmp_path / "Recording at 3.04\u202fPM.mp4"  # as macOS names them
    recorded.write_bytes(clip.read_bytes())
    output = tmp_path / "Mood of 3.04\u202fPM.safetensors"
    code, out, err = command("emotion", "from-clip", recorded, "--output", output)
    assert code == 0, err
    assert load_emotion(output).name == "Mood of 3.04 PM"
    code, out, err = command("emotion", "from-clip", recorded, "--output", output, "--name", "two\nlines")
    assert code == 2 and "--name" in err and not out


def test_a_chart_on_a_drive_that_is_not_there_is_told_before_the_reading(command, clip, monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda self: False)
    code, out, err = command("emotion", "from-clip", clip, "--chart", "chart.png")
    assert code == 2 and "cannot be written: there is no" in err and not out


def test_without_landmarks_the_voice_is_read(command, clip):
    code, out, _ = command("emotion", "from-clip", clip)
    assert code == 0 and out.splitlines()[0].split() == ["voice", "combined"]
    assert "The face was not read" in out and "how aroused" in out


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["nowhere.mp4"], "nowhere.mp4 cannot be read"),
        ([DEMO / "portrait.jpg"], "Nothing in portrait.jpg shows an emotion. The face was not read"),
        ([DEMO / "speech.flac", "--chart", "chart.jpg"], "--chart is chart.jpg"),
        ([DEMO / "speech.flac", "--output", "emotion.txt"], "--output is emotion.txt"),
        ([DEMO / "speech.flac", "--embedder", "lost.safetensors"], "--embedder is lost.safetensors: no such file"),
        ([DEMO / "speech.flac", "--voice-model", "lost"], "lost: no model folder"),
        ([DEMO / "speech.flac", "--landmarks", "lost.npy"], "lost.npy: no such file"),
        ([DEMO / "speech.flac", "--face-landmarker", "lost.task"], "speech.flac has no pictures"),
    ],
)
def test_bad_input_is_told_in_one_line(command, arguments, told):
    code, _, err = command("emotion", "from-clip", *arguments)
    assert code == 2 and told in err and len(err.strip().splitlines()) == 1


def test_what_is_read_is_not_written_over(command, clip, tmp_path):
    picture, landmarks = tmp_path / "face.png", tmp_path / "face.safetensors"
    Image.new("RGB", (8, 8)).save(picture)
    save_file({"blendshapes": film((1, SMILE))}, landmarks, {"fps": "25"})
    made = ["generate", "--portrait", picture, "--audio", DEMO / "speech.flac", "--output", tmp_path / "out.mp4"]
    for arguments, told in (
        (["emotion", "from-clip", picture, "--chart", picture], "--chart is"),
        (["emotion", "from-clip", clip, "--landmarks", landmarks, "--output", landmarks], "--output is"),
        ([*made, "--emotion", f"clip:{clip}", "--chart", picture], "--chart is"),
    ):
        code, out, err = command(*arguments)
        assert code == 2 and told in err and "a file that is read" in err and not out
    code, out, err = command("emotion", "from-clip", clip, "--chart", picture / "chart.png")
    assert code == 2 and "which cannot be written" in err and not out


def test_a_video_is_made_with_the_emotion_of_a_clip(command, clip, tmp_path):
    made = ["generate", "--portrait", DEMO / "portrait.jpg", "--audio", DEMO / "speech.flac"]
    made += ["--size", 64, "--steps", 1, "--length", 0.3, "--fps", 12.5, "--face", "180,60,320,250"]
    frames = {}
    for name, emotion in (
        ("glad", [f"clip:{clip}", "--landmarks", clip.with_name("smile.npy")]),
        ("course", [f"clip:{clip}", "--landmarks", clip.with_name("face.npy"), "--timeline"]),
        ("plain", ["neutral"]),
    ):
        output = tmp_path / f"{name}.mp4"
        code, out, err = command(*made, "--output", output, "--emotion", *emotion)
        assert code == 0, err
        assert ("how sure" in out) == (name != "plain")
        with av.open(str(output)) as container:
            frames[name] = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert np.any(frames["glad"] != frames["plain"]) and np.any(frames["course"] != frames["plain"])
    kept = read_metadata(tmp_path / "glad.mp4")
    settings = json.loads(kept["dicetalk"])
    assert "clip:clip.mp4" in kept["comment"] and settings["emotion"] == "clip:clip.mp4"
    assert settings["landmarks"] == "smile.npy" and str(clip.parent) not in kept["dicetalk"]
    assert "landmarks" not in json.loads(read_metadata(tmp_path / "plain.mp4")["dicetalk"])


@pytest.mark.parametrize(
    "emotion, told",
    [
        (["clip:nowhere.mp4"], "--emotion is nowhere.mp4, which does not exist"),
        ([f"clip:{DEMO / 'README.md'}"], "README.md cannot be read as video"),
        (["happy", "--timeline"], "--timeline sets how a clip is read, and --emotion names none"),
        (["happy", "--face-model", "x"], "--face-model sets how a clip is read"),
    ],
)
def test_bad_clips_are_told_before_a_video_is_made(command, tmp_path, emotion, told):
    code, _, err = command(
        *("generate", "--portrait", DEMO / "portrait.jpg", "--audio", DEMO / "speech.flac"),
        *("--output", tmp_path / "out.mp4", "--emotion", *emotion),
    )
    assert code == 2 and told in err and not (tmp_path / "out.mp4").exists()
