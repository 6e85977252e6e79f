"""A student of `distill` in the nodes: sampled by its own settings, to the library's frames."""

import copy
import logging
from types import SimpleNamespace

import pytest
import torch
from small_model import LATENT, SmallModel
from test_speed_in_comfyui import FloatUNet

FRAMES = 30
DEFAULTS = {"steps": 25, "sampler_name": "euler", "scheduler": "karras", "reference_scale": 3.0, "emotion_scale": 6.0}


@pytest.fixture(scope="module")
def small(pack, comfy_nodes):
    return SmallModel(pack)


@pytest.fixture(scope="module")
def student(small, tmp_path_factory):
    """A MODEL as Load DICE-Talk gives it."""
    folder = tmp_path_factory.mktemp("student") / "DICE-Talk"
    folder.mkdir()
    files = small.module("dicetalk.checkpoints.student")
    files.write_student(files.Student(4, 3.0, 6.0, "mine"), folder)
    return small.load(small.save(folder / "unet.pth"))


def inputs(small, model, **more):
    """What is wired to the Sampler and the Guider, and the conditions that this means."""
    conditions = small.conditions(FRAMES)
    dicetalk = SimpleNamespace(
        emotion_tokens=lambda emotion, frames: (conditions.emotion_tokens, conditions.uncond_emotion_tokens),
        pose_features=lambda mask: conditions.pose_features,
    )
    portrait = SimpleNamespace(
        latent=conditions.image_latent, clip_embeds=conditions.clip_embeds, face_mask=conditions.face_mask
    )
    audio = SimpleNamespace(tokens=conditions.audio_tokens, unconditional=conditions.uncond_audio_tokens)
    wired = {"model": model, "dicetalk": dicetalk, "portrait": portrait, "audio_features": audio, "emotion": None}
    return wired | {"overlap": 0, "shift": 7, "motion_bucket": 8, "expression_bucket": 16} | more, conditions


def sampled(small, model, **more):
    """The latents, and the size of every batch that went through the UNet."""
    import comfy.patcher_extension

    model, pictures = model.clone(), []

    def count(executor, x, *args, **kwargs):
        pictures.append(len(x))
        return executor(x, *args, **kwargs)

    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "count", count)
    given, _ = inputs(small, model, **DEFAULTS | more)
    with torch.inference_mode():
        return small.module("nodes.sampling.sampler").sample(seed=3, **given), pictures


def test_at_its_defaults_the_sampler_makes_four_passes_to_the_librarys_frames(small, student, caplog):
    with caplog.at_level(logging.INFO):
        latents, pictures = sampled(small, student, clamp_windows=True)
    assert "is a student of mine: 4 steps of lcm" in caplog.text
    assert sum(pictures) == 4 * FRAMES, "4 passes for every frame, of one branch"
    unet = copy.copy(student.model.diffusion_model)
    unet.__class__ = small.module("dicetalk.model.unet").DiceTalkUNet
    expected = small.module("dicetalk.sampling.loop").sample(
        FloatUNet(unet),
        inputs(small, student)[1],
        torch.randn(FRAMES + 25, *LATENT, generator=torch.Generator().manual_seed(3)),
        small.module("dicetalk.sampling.schedules").make_scheduler("lcm"),
        4,
        1.0,
        1.0,
        savings=small.module("dicetalk.sampling.speed").Savings(clamp_windows=True),
        seed=3,
    )
    expected = expected / small.module("dicetalk.model.settings").LATENT_SCALE
    off = (latents - expected).abs().mean() / expected.abs().mean()
    assert off < 0.01


def test_other_widgets_are_obeyed_and_other_models_stay_as_they_were(small, student, caplog):
    with caplog.at_level(logging.INFO):
        _, pictures = sampled(small, student, steps=2, clamp_windows=True)
    assert sum(pictures) == 2 * FRAMES and "as given: steps 2." in caplog.text
    _, pictures = sampled(small, student, steps=3, emotion_scale=2.0, clamp_windows=True)
    assert sum(pictures) == 3 * 2 * FRAMES, "C and R"
    caplog.clear()
    with caplog.at_level(logging.INFO):
        _, pictures = sampled(small, small.patcher, steps=2, clamp_windows=True)
    assert sum(pictures) == 2 * 3 * FRAMES and "student" not in caplog.text


def test_the_guider_takes_its_scales(small, student):
    node = small.module("nodes.sampling.sampler").DiceTalkGuider
    for scales, expected in (((3.0, 6.0), (1.0, 1.0)), ((2.0, 6.0), (2.0, 1.0))):
        chosen = dict(zip(("reference_scale", "emotion_scale"), scales))
        guider, _ = node.execute(**inputs(small, student, **chosen)[0]).result
        assert (guider.reference_scale, guider.emotion_scale) == expected
    guider, _ = node.execute(**inputs(small, small.patcher, reference_scale=3.0, emotion_scale=6.0)[0]).result
    assert (guider.reference_scale, guider.emotion_scale) == (3.0, 6.0)


def test_a_damaged_file_is_one_error(small, tmp_path):
    (tmp_path / "student.json").write_text("damaged")
    with pytest.raises(small.module("dicetalk.errors").InputError, match="does not say how the student"):
        small.load(small.save(tmp_path / "unet.pth"))
