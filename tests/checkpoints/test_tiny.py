"""The tiny checkpoint: complete, small, the same each time, and loadable by the classes of the real one."""

import argparse
import hashlib
import json

import numpy as np
import pytest
import torch

from dicetalk.checkpoints.finding import PARTS, resolve_checkpoint
from dicetalk.checkpoints.loading import load_part
from dicetalk.checkpoints.priors import load_priors
from dicetalk.checkpoints.tiny import emotion_means, write_tiny_checkpoint
from dicetalk.checkpoints.whisper import load_whisper_encoder
from dicetalk.commands import tiny as command
from dicetalk.errors import InputError
from dicetalk.model.audio import audio_features


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def run(*arguments):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


def test_complete_small_and_known_as_untrained(tiny_checkpoint):
    checkpoint = resolve_checkpoint(tiny_checkpoint)
    assert set(checkpoint.files) == set(PARTS)
    assert checkpoint.whisper and checkpoint.svd and checkpoint.emotions
    assert checkpoint.untrained
    assert sum(path.stat().st_size for path in tiny_checkpoint.rglob("*") if path.is_file()) < 100e6


def test_same_bytes_each_time_and_other_bytes_for_another_seed(tiny_checkpoint, tmp_path):
    write_tiny_checkpoint(tmp_path / "again")
    again = digests(tmp_path / "again")
    assert again == digests(tiny_checkpoint)
    write_tiny_checkpoint(tmp_path / "again", seed=1)
    other = digests(tmp_path / "again")
    assert other.keys() == again.keys()
    differing = {name for name in again if again[name] != other[name]}
    assert differing == {name for name in again if name.endswith((".pth", ".safetensors", ".npy"))}


def test_parts_fit_together(tiny_checkpoint):
    checkpoint = resolve_checkpoint(tiny_checkpoint)
    parts = {part: load_part(part, checkpoint.file(part)) for part in PARTS}
    unet = parts["unet"]
    encoder = load_whisper_encoder(checkpoint.whisper)
    with torch.no_grad():
        windows = audio_features(encoder, torch.zeros(3 * 1280))
        audio = parts["audio_linear"](windows)[None]
        emotion = parts["emo_model"].tokens(load_priors(checkpoint.emotions)["happy"].mean[None])[None]
        face = torch.ones(1, 1, 64, 64)
        output = unet(
            torch.randn(1, 3, 8, 8, 8),
            torch.tensor([1.0]),
            torch.randn(1, 1, 1, 1024),
            torch.tensor([[12.5, 8, 16]]),
            audio,
            emotion,
            parts["pose_guider"](face)[:, None],
            face,
        ).sample
        features = torch.randn(2, unet.config.block_out_channels[-1], 2, 2)
        assert parts["emo_model"].classify(features).shape == (2, 22)
    assert audio.shape == (1, 3, 32, 1024) and emotion.shape == (1, 1, 32, 1024)
    assert output.shape == (1, 3, 4, 8, 8) and output.isfinite().all()


def test_stable_video_diffusion_folder(tiny_checkpoint):
    from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    svd = resolve_checkpoint(tiny_checkpoint).svd
    tower = CLIPVisionModelWithProjection.from_pretrained(
        svd / "image_encoder", variant="fp16", torch_dtype=torch.float32
    )
    processed = CLIPImageProcessor.from_pretrained(svd / "feature_extractor")(np.zeros((224, 224, 3), np.uint8))
    with torch.no_grad():
        embeds = tower(torch.tensor(np.array(processed.pixel_values))).image_embeds
    assert embeds.shape == (1, 1024) and embeds.isfinite().all()
    vae = AutoencoderKLTemporalDecoder.from_pretrained(svd / "vae", variant="fp16", torch_dtype=torch.float32)
    with torch.no_grad():
        latent = vae.encode(torch.zeros(1, 3, 64, 64)).latent_dist.mode()
        picture = vae.decode(latent, num_frames=1).sample
    assert latent.shape == (1, 4, 8, 8) and picture.shape == (1, 3, 64, 64) and picture.isfinite().all()
    scheduler = EulerDiscreteScheduler.from_pretrained(svd / "scheduler")
    scheduler.set_timesteps(25)
    assert float(scheduler.sigmas[0]) == pytest.approx(700) and float(scheduler.sigmas[-2]) == pytest.approx(0.002)
    assert json.loads((svd / "vae" / "config.json").read_text())["_class_name"] == "AutoencoderKLTemporalDecoder"


def test_emotions_lie_as_the_published_ones_do(tiny_checkpoint):
    priors = load_priors(tiny_checkpoint / "emotions")
    names = ["angry", "contempt", "disgusted", "fear", "happy", "neutral", "sad", "surprised"]
    assert list(priors) == names
    means = np.stack([priors[name].mean.numpy() for name in names])
    np.testing.assert_array_equal(means, np.stack([emotion_means()[name] for name in names]))
    assert np.all(np.abs(np.linalg.norm(means, axis=1) - 13.7) < 0.7)
    correlations = np.corrcoef(means)[~np.eye(8, dtype=bool)]
    assert correlations.min() > 0.905 and correlations.max() < 0.995
    residuals = dict(zip(names, means - means[names.index("neutral")]))
    assert np.corrcoef(residuals["angry"], residuals["sad"])[0, 1] > 0.8
    assert np.corrcoef(residuals["fear"], residuals["surprised"])[0, 1] > 0.8
    assert abs(np.corrcoef(residuals["angry"], residuals["surprised"])[0, 1]) < 0.2


def test_never_writes_over_other_things(tmp_path):
    (tmp_path / "precious.txt").write_text("keep")
    with pytest.raises(InputError, match="holds files that are not of a tiny checkpoint"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["file"], "file cannot be written"),
        (["file/below"], "file/below cannot be written"),
        (["new", "--seed", -1], "--seed"),
    ],
)
def test_unusable_arguments(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=message):
        run(*arguments)


def test_command_says_what_it_wrote(tmp_path, capsys):
    assert run(tmp_path / "new") == 0
    printed = capsys.readouterr().out
    assert str(tmp_path / "new") in printed and "noise" in printed
    assert not list((tmp_path / "new").glob(".*")), "nothing half-written stays behind"


def test_interrupted_it_leaves_no_half_file_and_can_be_run_again(tmp_path, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("dicetalk.checkpoints.tiny.np.save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_tiny_checkpoint(tmp_path / "new")
    assert not list((tmp_path / "new").glob(".*")) and not (tmp_path / "new" / "emotions").exists()
    write_tiny_checkpoint(tmp_path / "new")
    assert len(list((tmp_path / "new" / "emotions").iterdir())) == 8


def test_what_a_killed_run_left_is_no_hindrance(tmp_path, monkeypatch):
    monkeypatch.setattr("dicetalk.checkpoints.tiny.STEPS", {})
    (tmp_path / ".writing-abc").mkdir()
    (tmp_path / ".writing-abc" / "unet.pth").write_bytes(b"half")
    write_tiny_checkpoint(tmp_path)
    assert not list(tmp_path.glob(".writing-*"))
