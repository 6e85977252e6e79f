"""The reader of drawn people: what it reads off pictures of people it has never seen, and how it is trained."""

import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from dicetalk import cli
from dicetalk.drawn import Person, Take, lip_gap
from dicetalk.emotion.options import NAMES
from dicetalk.errors import InputError
from dicetalk.measure.reader import SHIPPED, SIZE, DrawnReader, of_clip, read_reader
from dicetalk.measure.reader_training import ReaderOptions, errors, train_reader, training_pictures


@pytest.fixture(scope="module")
def reader():
    return read_reader()


def test_it_reads_people_it_has_never_seen(reader):
    found = errors(reader, total=4, every=3)
    assert found["clips"] == 4 * 22 and found["among"] == 50
    assert found["emotion"] >= 0.95 and found["mouth_correlation"] > 0.9 and found["identity"] >= 0.9
    for name, values in found["strength"].items():
        assert values == sorted(values) and (name == "neutral") == (len(values) == 1), name


def test_its_own_error_is_in_its_file_and_within_the_goals(reader):
    found = reader.errors
    assert found["people"] == found["among"] == 50 and found["clips"] == 1100
    assert found["emotion"] >= 0.95 and found["mouth_correlation"] > 0.9 and found["identity"] >= 0.9
    assert SHIPPED.stat().st_size <= 1.5e6


def test_blur_and_noise_do_little(reader):
    random = np.random.default_rng(0)

    def worse(pictures):
        blurred = [Image.fromarray(each).filter(ImageFilter.GaussianBlur(0.8)) for each in pictures]
        return np.clip(np.stack(blurred) + random.normal(0, 8, pictures.shape), 0, 255).astype(np.uint8)

    found = errors(reader, total=2, every=3, changed=worse)
    assert found["emotion"] >= 0.9 and found["mouth_correlation"] > 0.85 and found["identity"] >= 0.9


def test_pictures_of_other_sizes_and_kinds_read_the_same(reader):
    take = Take(Person.of(7), "happy", 2, 3, 3)
    small = reader.read([take.frame(number, SIZE) for number in range(0, len(take), 4)])
    large = [Image.fromarray(take.frame(number, 4 * SIZE)) for number in range(0, len(take), 4)]
    resized = reader.read(large)
    floats = reader.read(torch.from_numpy(np.stack([take.frame(n, SIZE) for n in range(0, len(take), 4)])) / 255)
    for name in ("mouth", "strength", "blendshapes"):
        assert np.abs(small[name] - resized[name]).max() < 0.15, name
        np.testing.assert_allclose(small[name], floats[name], atol=1e-5)
    assert (small["embedding"] * resized["embedding"]).sum(1).min() > 0.9
    assert np.abs(small["mouth"] - lip_gap(take.blendshapes[::4])).mean() < 0.1


def test_a_clip_as_a_whole(reader):
    take = Take(Person.of(11), "angry", 3, 3, 3)
    clip = of_clip(reader.read(list(take.frames(SIZE))))
    assert NAMES[clip["emotion"].argmax()] == "angry" == NAMES[clip["shares"].argmax()]
    assert clip["emotion"].sum() == pytest.approx(1, abs=1e-5) and clip["shares"].sum() == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(clip["embedding"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [np.zeros((8, 8, 3)), np.zeros((9, 8, 3))],
        np.zeros((2, 8, 8)),
        np.zeros((0, 8, 8, 3)),
        np.full((1, 8, 8, 3), np.nan),
    ],
)
def test_what_is_no_picture_is_refused(reader, frames):
    with pytest.raises(InputError, match="pictures to read"):
        reader.read(frames)


def test_files_that_are_no_reader(tmp_path):
    with pytest.raises(InputError, match="there is no reader of drawn people here; give --reader FILE"):
        read_reader(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(InputError, match="cannot be read as a reader"):
        read_reader(tmp_path / "text.safetensors")
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="is no reader of drawn people"):
        read_reader(tmp_path / "other.safetensors")


def test_training_learns_to_read():
    options = ReaderOptions(faces=24, takes=60, each=20, steps=100, batch=32)
    pictures, losses = training_pictures(options), []
    assert pictures["pictures"].shape == (480, 3, 64, 64) and torch.allclose(
        pictures["emotion"].sum(1), torch.ones(480)
    )
    network = train_reader(options, pictures, on_step=lambda done, total, loss: losses.append(loss))
    assert len(losses) == 100 and np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    found = errors(DrawnReader(network, {}, {}), total=2, every=4)
    assert found["mouth_correlation"] > 0.4


def test_the_command_writes_a_reader_and_prints_its_error(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli, "COMMANDS", ("evaluate",))
    path = tmp_path / "reader.safetensors"
    small = ["--reader-steps", "3", "--reader-faces", "2", "--reader-people", "1", "--device", "cpu"]
    assert cli.main(["evaluate", "--train-reader", str(path), *small]) == 0
    out = capsys.readouterr().out
    assert "22 drawn clips of 1 people it has never seen" in out and str(path) in out
    made = read_reader(path)
    assert made.errors["clips"] == 22 and made.provenance["options"]["faces"] == 2
    json.dumps(made.errors)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "Give --checkpoint DIR or --videos PATH"),
        (["--checkpoint", "mine", "--videos", "results"], "Give --checkpoint DIR or --videos PATH"),
        (["--train-reader", "reader.pt"], "end its name with .safetensors"),
        (["--train-reader", "r.safetensors", "--reader-steps", "0"], "--reader-steps is 0: give 1 or more"),
        (["--train-reader", "r.safetensors", "--seed", "-1"], "--seed is -1: give 0 or more"),
    ],
)
def test_wrong_options_are_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(cli, "COMMANDS", ("evaluate",))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["evaluate", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not list(tmp_path.iterdir())
