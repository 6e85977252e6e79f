import os
import subprocess
import sys

import pytest
from PIL import Image
from project import ROOT

from dicetalk import cli
from dicetalk.checkpoints.finding import resolve_checkpoint
from dicetalk.checkpoints.priors import load_priors
from dicetalk.emotion.files import load_emotion, save_emotion
from dicetalk.emotion.mixing import mix
from dicetalk.emotion.parsing import parse_emotion


@pytest.fixture
def emotion(monkeypatch, tiny_checkpoint, capsys):
    """Runs the command with the tiny checkpoint: arguments → (exit code, standard output, standard error)."""
    monkeypatch.setattr(cli, "COMMANDS", ("emotion",))

    def run(*arguments):
        code = cli.main(["emotion", *map(str, arguments), "--checkpoint", str(tiny_checkpoint)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def priors(tiny_checkpoint):
    return load_priors(resolve_checkpoint(tiny_checkpoint).folder("emotions"))


def test_show(emotion):
    code, out, _ = emotion("show", "happy:1.3", "--top", 3)
    lines = out.splitlines()
    assert code == 0 and lines[0] == "happy:1.3"
    assert any(line.split()[:3] == ["nearest", "presets", "happy"] and "correlation 1.00" in line for line in lines)
    assert "of 64 codes" in out and "untrained" in out and "share" in lines[-4]
    shares = [float(line.split()[1].rstrip("%")) for line in lines[-3:]]
    assert shares == sorted(shares, reverse=True) and 1 < shares[0] < 3


def test_show_a_published_file(emotion, tmp_path):
    import numpy as np

    np.save(tmp_path / "joy.npy", np.random.default_rng(0).normal(size=(1, 256)).astype(np.float32))
    code, out, _ = emotion("show", tmp_path / "joy.npy", "--top", 1)
    assert code == 0 and out.splitlines()[0] == "joy" and "joy.npy sha256:" in out


def test_show_with_other_bank_options(emotion):
    _, out, _ = emotion("show", "sad", "--bank", "nearest", "--temperature", 0.5)
    assert "bank                   nearest, temperature 0.5" in out
    assert "share" in out.splitlines()[-2] and out.splitlines()[-1].count("100.00%") == 3
    _, out, _ = emotion("show", "sad", "--top-k", 3)
    assert "bank                   top-k 3, temperature 1" in out and "as spread as 3.0 of 64" in out


def test_show_a_timeline_and_a_mix_by_tokens(emotion):
    code, out, _ = emotion("show", "0s neutral; 1.5s tokens(sad + happy) smooth", "--top", 1)
    assert code == 0
    assert "at 0 s (linear): neutral" in out and "at 1.5 s (smooth): tokens(sad + happy)" in out
    assert out.count("bank usage of") == 2 and out.count("part  ") == 2


def test_mix_is_saved(emotion, priors, tmp_path):
    path = tmp_path / "gloom.safetensors"
    code, out, _ = emotion("mix", "sad", "fear", "--weights", 7, 3, "--output", path)
    assert code == 0 and str(path) in out
    saved = load_emotion(path)
    assert saved == mix([priors["sad"], priors["fear"]], [7, 3]) and saved.name == "gloom"
    assert "sad 0.7" in saved.provenance

    line = tmp_path / "line.safetensors"
    assert emotion("mix", "0s sad; 2s gloom:0.5 step", "--saved", tmp_path, "--name", "Weg", "--output", line)[0] == 0
    assert load_emotion(line) == parse_emotion("0s sad; 2s gloom:0.5 step", {**priors, "gloom": saved})
    assert load_emotion(line).name == "Weg"

    narrow = tmp_path / "at 3\u202fPM.safetensors"  # as macOS names files
    assert emotion("mix", path, "--output", narrow)[0] == 0 and load_emotion(narrow).name == "at 3 PM"

    again = tmp_path / "again.safetensors"
    options = ("--method", "moments", "--top-k", 4, "--output", again)
    assert emotion("mix", path, "happy", *options)[0] == 0
    expected = mix([saved, priors["happy"]], method="moments").with_bank(mode="top-k", top_k=4)
    assert load_emotion(again) == expected


def test_bank_draws_and_prints(emotion, tmp_path):
    drawn, used = tmp_path / "bank.png", tmp_path / "usage.png"
    code, out, _ = emotion("bank", "--output", drawn, "--usage-output", used)
    rows = [line.split() for line in out.splitlines()[1:9]]
    assert code == 0 and [row[1] for row in rows] == sorted(row[1] for row in rows)
    assert rows[0][2] == "1.00" and rows[0][3] == rows[1][2] and rows[5][2:] == ["-"] * 8
    with Image.open(drawn) as image, Image.open(used) as usage:
        assert image.format == usage.format == "PNG" and usage.width > 64 * 14
    for space in ("tokens", "embedding"):
        code, out, _ = emotion("bank", "happy", "(sad + fear)", "--space", space, "--raw", "--output", drawn)
        assert code == 0 and "(sad + fear)" in out and space in out
    assert sorted(os.listdir(tmp_path)) == ["bank.png", "usage.png"]


def test_emotions_are_compared_in_one_bank(emotion, tmp_path):
    saved, drawn = tmp_path / "sharp.safetensors", tmp_path / "bank.png"
    assert emotion("mix", "sad", "--bank", "nearest", "--temperature", 0.5, "--output", saved)[0] == 0
    for space in ("usage", "tokens"):
        for options in ([], ["--top-k", 3]):
            _, out, _ = emotion("bank", saved, "sad", "happy", "--space", space, *options, "--output", drawn)
            rows = [line.split()[-3:] for line in out.splitlines()[1:4]]
            assert rows[0] == rows[1] and rows[0][:2] == ["1.00", "1.00"], out


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("show", "hapy"), "did you mean happy?"),
        (("show", "(sad"), "expected + or )"),
        (("show", "nowhere.safetensors"), "nowhere.safetensors: no such file"),
        (("show", "happy", "--temperature", "99"), "temperature"),
        (("show", "happy", "--top-k", "3", "--bank", "full"), "--top-k goes with"),
        (("mix", "happy", "--output", "happy.npy"), "a name that ends in .safetensors"),
        (("mix", "happy", "sad", "--weights", "1", "--output", "x.safetensors"), "as many weights"),
        (("mix", "0s happy", "sad", "--output", "x.safetensors"), "timeline"),
        (("bank", "--output", "x.jpg"), "end its name"),
        (("bank", "0s happy", "--output", "x.png"), "timeline"),
        (("bank", "--output", "/dev/null/x.png"), "cannot be written"),
    ],
)
def test_wrong_input_is_one_line_and_nothing_is_written(emotion, arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error = emotion(*arguments)
    assert code == 2 and words in error and error.startswith("dicetalk emotion: error: ") and error.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_a_timeline_among_the_priors_is_passed_over(monkeypatch, tiny_checkpoint, priors, tmp_path, capsys):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "DICE-Talk").symlink_to(tiny_checkpoint / "DICE-Talk")
    (folder / "emotions").mkdir()
    for name in ("neutral", "happy"):
        save_emotion(priors[name], folder / "emotions" / f"{name}.safetensors")
    save_emotion(parse_emotion("0s neutral; 1s happy", priors), folder / "emotions" / "rise.safetensors")
    monkeypatch.setattr(cli, "COMMANDS", ("emotion",))
    output = tmp_path / "bank.png"
    assert cli.main(["emotion", "bank", "--checkpoint", str(folder), "--output", str(output), "--space", "tokens"]) == 0
    assert "rise" not in capsys.readouterr().out and output.is_file()
    assert cli.main(["emotion", "show", "rise", "--checkpoint", str(folder)]) == 0


def test_a_name_that_the_output_cannot_show_is_no_error(tiny_checkpoint, tmp_path):
    output = tmp_path / "Glück 愉快.safetensors"
    command = [sys.executable, "-m", "dicetalk", "emotion", "mix", "happy", "--output", output]
    command += ["--checkpoint", tiny_checkpoint]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}  # as Windows has its old code pages in files and pipes
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr
    assert "Gl\\xfcck \\u6109\\u5feb.safetensors" in ended.stdout and output.is_file()
