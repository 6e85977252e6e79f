import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dicetalk.cli import main

EXAMPLES = Path(__file__).parents[1] / "examples"
PORTRAIT, SPEECH = EXAMPLES / "portrait.jpg", EXAMPLES / "speech.flac"


@pytest.fixture
def generate(tiny_checkpoint, tmp_path, capsys):
    """Run `dicetalk generate` on the examples, small and short; returns exit code, standard output and error."""

    def run(**changes):
        options = {
            "portrait": PORTRAIT,
            "audio": SPEECH,
            "emotion": "happy",
            "output": tmp_path / "out.mp4",
            "checkpoint": tiny_checkpoint,
            "size": 64,
            "steps": 2,
            "length": 0.4,
            "device": "cpu",
        } | changes
        arguments = []
        for name, value in options.items():
            if value is not None:
                arguments += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        code = main(["generate", *arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def broken(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"portrait": "nowhere.png"}, ["nowhere.png", "does not exist"]),
        ({"portrait": SPEECH}, ["speech.flac", "not an image"]),
        ({"audio": "nowhere.wav"}, ["nowhere.wav", "does not exist"]),
        ({"audio": PORTRAIT}, ["portrait.jpg", "no audio track"]),
        ({"emotion": "hapy"}, ["hapy", "did you mean happy"]),
        ({"emotion": "happy:"}, ["Emotion text", "at the end"]),
        ({"emotion": "happy:9"}, ["Emotion text"]),
        ({"emotion": "nowhere.safetensors"}, ["nowhere.safetensors"]),
        ({"checkpoint": "/nowhere"}, ["/nowhere", "dicetalk download", "dicetalk tiny"]),
        ({"face": "1,2,3"}, ["--face", "x1,y1,x2,y2"]),
        ({"face": "1,2,3,nan"}, ["--face", "x1,y1,x2,y2"]),
        ({"face": "600,600,700,700"}, ["600,600,700,700", "outside"]),
        ({"face": "300,300,100,100"}, ["300,300,100,100", "inverted"]),
        ({"steps": 0}, ["--steps is 0"]),
        ({"size": 63}, ["--size is 63"]),
        ({"size": 100000}, ["--size is 100000"]),
        ({"seed": -1}, ["--seed is -1"]),
        ({"start": -1}, ["--start is -1"]),
        ({"start": 60}, ["speech.flac", "60 s", "past the end"]),
        ({"length": 0}, ["--length is 0"]),
        ({"length": 0.05}, ["50 ms", "80 ms"]),
        ({"emotion_scale": "nan"}, ["--emotion-scale is nan"]),
        ({"reference_scale": -2}, ["--reference-scale is -2"]),
        ({"margin": "inf", "crop": True}, ["--margin is inf"]),
        ({"decode_chunk_size": 0}, ["--decode-chunk-size is 0"]),
        ({"device": "abacus"}, ["--device abacus"]),
        ({"output": "/nowhere/out.mp4"}, ["/nowhere", "does not exist"]),
        ({"output": "out.avi"}, ["out.avi", ".mp4"]),
    ],
)
def test_bad_input_is_told_in_one_line(generate, tmp_path, monkeypatch, changes, words):
    monkeypatch.setattr("dicetalk.commands.generate.make_frames", lambda *_: pytest.fail("the weights were loaded"))
    monkeypatch.chdir(tmp_path)

    code, out, err = generate(**changes)

    assert (code, out) == (2, "")
    assert err.startswith("dicetalk generate: error: ")
    assert len(err.strip().splitlines()) == 1
    assert all(word in err for word in words), err
    assert os.listdir(tmp_path) == []


def test_no_face(generate, tmp_path):
    Image.new("RGB", (256, 256), "grey").save(tmp_path / "grey.png")
    code, _, err = generate(portrait=tmp_path / "grey.png")
    assert code == 2
    assert "No face" in err
    assert "--face" in err


def test_no_checkpoint_names_download_and_tiny(generate, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    code, _, err = generate(checkpoint=None)
    assert code == 2
    assert "dicetalk download" in err
    assert "dicetalk tiny" in err


def test_the_files_that_are_read_are_not_overwritten(generate, tmp_path):
    video = tmp_path / "speech.mp4"
    shutil.copy(SPEECH, video)
    code, _, err = generate(audio=video, output=tmp_path / "." / "speech.mp4")
    assert code == 2
    assert "--audio" in err
    assert video.read_bytes() == SPEECH.read_bytes()


@pytest.mark.parametrize("option", ["--fps", "--dtype"])
def test_unknown_choices(option, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["generate", "--portrait", "a", "--audio", "b", "--output", "c.mp4", option, "7"])
    assert exit.value.code == 2
    assert option in capsys.readouterr().err
