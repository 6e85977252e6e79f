"""Conversion to safetensors: same numbers, recorded origin, restartable, never over other people's files."""

import argparse
import errno
import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dicetalk import __version__
from dicetalk.checkpoints import convert
from dicetalk.checkpoints.convert import convert_checkpoint, total_bytes
from dicetalk.checkpoints.finding import PARTS, resolve_checkpoint
from dicetalk.checkpoints.loading import load_part
from dicetalk.checkpoints.priors import load_priors
from dicetalk.commands import convert as command
from dicetalk.errors import InputError


@pytest.fixture
def source(tiny_checkpoint, tmp_path):
    """A checkpoint that may be written into; its largest parts are small."""
    folder = tmp_path / "source"
    shutil.copytree(tiny_checkpoint, folder)
    return folder


def run(*arguments):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def metadata(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def converted(checkpoint, output=None, dtype=None):
    """Convert; the files that were written and those that were up to date, by name."""
    reported = {}
    convert_checkpoint(checkpoint, output, dtype, on_file=lambda path, written: reported.update({path.name: written}))
    return reported


def test_in_place_the_new_files_hold_the_same_and_are_preferred(source):
    before = resolve_checkpoint(source)
    priors = load_priors(before.emotions)
    reported = converted(before)
    assert len(reported) == len(PARTS) + 8 and all(reported.values())
    after = resolve_checkpoint(source)
    for part in PARTS:
        assert after.file(part) == source / "DICE-Talk" / f"{part}.safetensors"
        old = torch.load(before.file(part), weights_only=True)
        new = load_part(part, after.file(part)).state_dict()
        assert new.keys() == old.keys() and all(torch.equal(new[name], old[name]) for name in old)
        assert load_file(after.file(part)).keys() == old.keys(), "the safetensors library reads it"
        assert metadata(after.file(part)) == {
            "format": "pt",
            "part": part,
            "source": f"{part}.pth",
            "source_sha256": sha256(before.file(part)),
            "dtype": "as in source",
            "dicetalk_version": __version__,
        }
    again = load_priors(after.emotions)
    assert again == priors and again.keys() == priors.keys()
    for name in priors:
        assert again[name].provenance == f"{name}.npy sha256:{sha256(source / 'emotions' / f'{name}.npy')}"
    shutil.rmtree(source / "emotions")
    for part in PARTS:
        before.file(part).unlink()
    assert set(resolve_checkpoint(source).files) == set(PARTS), "the originals can go"


def test_what_a_miniature_becomes_is_known_as_one(source, tmp_path):
    (source / "MINIATURE").touch()
    converted(resolve_checkpoint(source), tmp_path / "new", "float16")
    assert resolve_checkpoint(tmp_path / "new").miniature


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_another_folder_becomes_a_complete_checkpoint_in_the_asked_precision(source, tmp_path, dtype):
    before = {path: path.stat().st_mtime_ns for path in source.rglob("*")}
    converted(resolve_checkpoint(source), tmp_path / "new", dtype)
    assert {path: path.stat().st_mtime_ns for path in source.rglob("*")} == before, "the source is as it was"
    checkpoint = resolve_checkpoint(tmp_path / "new")
    assert checkpoint.untrained and not checkpoint.miniature
    assert [checkpoint.whisper, checkpoint.svd, checkpoint.emotions] == [
        tmp_path / "new" / name for name in ("whisper-tiny", "stable-video-diffusion-img2vid-xt", "emotions")
    ]
    for folder in (checkpoint.whisper, checkpoint.svd):
        for path in (source / folder.name).rglob("*.*"):
            assert sha256(path) == sha256(folder / path.relative_to(source / folder.name))
    for part in PARTS:
        old = torch.load(source / "DICE-Talk" / f"{part}.pth", weights_only=True)
        new = load_file(checkpoint.file(part))
        assert all(torch.equal(new[name], old[name].to(getattr(torch, dtype))) for name in old)
        assert metadata(checkpoint.file(part))["dtype"] == dtype


def test_a_second_run_does_only_what_is_left(source):
    checkpoint = resolve_checkpoint(source)
    converted(checkpoint)
    (source / "DICE-Talk" / "unet.safetensors").unlink()
    (source / "emotions" / "sad.safetensors").unlink()
    reported = converted(checkpoint)
    assert {name for name, written in reported.items() if written} == {"unet.safetensors", "sad.safetensors"}
    assert converted(checkpoint) == dict.fromkeys(reported, False)
    reported = converted(checkpoint, dtype="float16")
    assert {name for name, written in reported.items() if written} == {f"{part}.safetensors" for part in PARTS}


def test_a_changed_source_is_converted_again(source):
    converted(resolve_checkpoint(source))
    path = source / "DICE-Talk" / "pose_guider.pth"
    changed = {name: tensor + 1 for name, tensor in torch.load(path, weights_only=True).items()}
    torch.save(changed, path)
    shutil.copy(source / "emotions" / "sad.npy", source / "emotions" / "happy.npy")
    reported = converted(resolve_checkpoint(source))
    assert {name for name, written in reported.items() if written} == {"pose_guider.safetensors", "happy.safetensors"}
    new = load_file(source / "DICE-Talk" / "pose_guider.safetensors")
    assert all(torch.equal(new[name], changed[name]) for name in changed)


def test_safetensors_can_be_converted_to_another_precision(source, tmp_path):
    converted(resolve_checkpoint(source))
    for part in PARTS:
        (source / "DICE-Talk" / f"{part}.pth").unlink()
    checkpoint = resolve_checkpoint(source)
    assert not any(converted(checkpoint).values()), "in place there is nothing to do"
    converted(checkpoint, tmp_path / "new", "float16")
    assert (
        load_file(tmp_path / "new" / "DICE-Talk" / "pose_guider.safetensors")["conv_in.weight"].dtype is torch.float16
    )


@pytest.mark.parametrize("name", ["DICE-Talk/unet.safetensors", "emotions/happy.safetensors"])
def test_files_of_others_are_not_replaced(source, name):
    save_file({"weight": torch.zeros(1)}, source / name)
    before = sha256(source / name)
    checkpoint = resolve_checkpoint(source)
    with pytest.raises(InputError, match=f"{Path(name).name} exists and was not written by this command: move it away"):
        converted(checkpoint)
    assert sha256(source / name) == before


def test_something_unreadable_in_the_way_is_not_replaced(source):
    (source / "DICE-Talk" / "unet.safetensors").write_bytes(b"half a file")
    with pytest.raises(InputError, match="not written by this command"):
        converted(resolve_checkpoint(source))


def test_a_wrong_part_is_refused_and_nothing_is_written(source):
    shutil.copy(source / "DICE-Talk" / "pose_guider.pth", source / "DICE-Talk" / "emo_model.pth")
    with pytest.raises(
        InputError, match="emo_model.pth, taken for DICE-Talk's emotion model, is DICE-Talk's pose guider"
    ):
        converted(resolve_checkpoint(source))
    assert not list((source / "DICE-Talk").glob("*.safetensors"))


def test_a_type_that_safetensors_lacks_is_told_before_anything_is_written(source):
    path = source / "DICE-Talk" / "emo_model.pth"
    tensors = torch.load(path, weights_only=True)
    name = next(iter(tensors))
    torch.save({**tensors, name: tensors[name].to(torch.float8_e4m3fnuz)}, path)
    with pytest.raises(InputError, match="emo_model.pth holds numbers of the type float8_e4m3fnuz.*--dtype float16"):
        converted(resolve_checkpoint(source))
    assert not list((source / "DICE-Talk").glob("*safetensors*"))
    assert converted(resolve_checkpoint(source), dtype="float16")["emo_model.safetensors"]


def test_a_missing_part_is_named(source):
    (source / "DICE-Talk" / "emo_model.pth").unlink()
    with pytest.raises(InputError, match="lacks emo_model.pth"):
        converted(resolve_checkpoint(source))


@pytest.mark.parametrize(
    "value, dtype, message",
    [
        (1e5, "float16", "too large for float16. Use --dtype bfloat16"),
        (float("nan"), None, "not finite"),
        (float("inf"), "float32", "not finite"),
    ],
)
def test_numbers_that_do_not_fit(source, value, dtype, message):
    path = source / "DICE-Talk" / "pose_guider.pth"
    tensors = torch.load(path, weights_only=True)
    tensors["conv_out.bias"][3] = value
    torch.save(tensors, path)
    with pytest.raises(InputError, match=f"pose_guider.pth: conv_out.bias holds .*{message}"):
        converted(resolve_checkpoint(source), dtype=dtype)
    assert not list(source.rglob("*pose_guider.safetensors*")), "not even half of it"


@pytest.mark.parametrize(
    "raised, seen",
    [
        (KeyboardInterrupt(), pytest.raises(KeyboardInterrupt)),
        (OSError(errno.ENOSPC, "No space left"), pytest.raises(InputError, match="No space left")),
    ],
)
def test_interrupted_it_leaves_no_half_file_and_can_be_run_again(source, monkeypatch, raised, seen):
    def stop(*arguments):
        raise raised

    with monkeypatch.context() as patched:
        patched.setattr(convert, "_check_finite", stop)
        with seen:
            converted(resolve_checkpoint(source))
    assert not [path for path in source.rglob("*") if "safetensors" in path.name and "DICE" in str(path)]
    converted(resolve_checkpoint(source))
    load_part("unet", source / "DICE-Talk" / "unet.safetensors")


def test_a_full_disk_is_noticed_before_anything_is_written(source, monkeypatch):
    monkeypatch.setattr("dicetalk.files.shutil.disk_usage", lambda path: SimpleNamespace(free=10**4))
    with pytest.raises(InputError, match=r"needs 2\d.\d MB of free disk space, and there are 10.0 kB"):
        converted(resolve_checkpoint(source))
    assert not list(source.rglob("*.part"))


def test_command(source, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("source", "--output", "new", "--dtype", "float16") == 0
    printed = capsys.readouterr().out
    assert f"wrote {tmp_path / 'new' / 'DICE-Talk' / 'unet.safetensors'} (" in printed
    assert "21 files written, 0 up to date." in printed and "--checkpoint new" in printed
    assert run("source", "--output", "new", "--dtype", "float16") == 0
    assert "0 files written, 21 up to date." in capsys.readouterr().out
    with pytest.raises(InputError, match="absent does not exist"):
        run("absent")


def test_progress_adds_up(source):
    checkpoint = resolve_checkpoint(source)
    for _ in range(2):
        counts = []
        convert_checkpoint(checkpoint, on_bytes=counts.append)
        assert sum(counts) == total_bytes(checkpoint)
