"""DICE-Talk Re-act: a video in the place of a portrait, with stand-ins for the encoders."""

import importlib
from fractions import Fraction

import numpy as np
import pytest
import torch
from test_portrait_node import ClipVision

BOX = {"x": 30.0, "y": 20.0, "width": 60.0, "height": 80.0}


class Vae:
    """Gives latents that hold each picture's mean."""

    def encode(self, pixels):
        mean = pixels.mean().item()
        return torch.full((1, 4, pixels.shape[1] // 8, pixels.shape[2] // 8), mean)


@pytest.fixture(scope="module")
def module(pack):
    return importlib.import_module(f"{pack.__name__}.nodes.react")


@pytest.fixture(autouse=True)
def no_preview(module, monkeypatch):
    monkeypatch.setattr(module, "shown", lambda *args: None)


def greys(count):
    return torch.stack([torch.full((120, 160, 3), number / 20) for number in range(count)])


@pytest.fixture
def components(pack):
    """A VIDEO of 12 greys, 25 a second, with a sound whose samples count up."""
    from comfy_api.latest import InputImpl, Types

    audio = {"waveform": torch.linspace(0, 1, 8000)[None, None], "sample_rate": 16000}
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=greys(12), audio=audio, frame_rate=Fraction(25)))


@torch.inference_mode()
def run(module, video, start=0.0, length=0.0, crop=False, bboxes=BOX, **more):
    return module.DiceTalkReact.execute(video, ClipVision(), Vae(), 128, crop, 0.5, start, length, bboxes, **more).args


def test_every_frame_is_encoded_and_the_sound_ends_with_them(module, components):
    portrait, audio, frames = run(module, components)
    assert frames.shape == (6, 128, 192, 3) and portrait.latent.shape == (6, 4, 16, 24)
    means = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]  # every second grey
    assert portrait.latent[:, 0, 0, 0].tolist() == pytest.approx(means, abs=0.01)
    assert frames[:, 5, 5, 0].tolist() == pytest.approx(means, abs=0.01)
    assert portrait.face_mask.shape == (1, 1, 128, 192) and portrait.prepared.frames is None
    assert audio["waveform"].shape == (1, 1, 7680) and audio["sample_rate"] == 16000


def test_start_and_length_cut_pictures_and_sound_alike(module, components):
    portrait, audio, _ = run(module, components, start=0.16, length=0.16)
    assert portrait.latent[:, 0, 0, 0].tolist() == pytest.approx([0.2, 0.3], abs=0.01)
    assert audio["waveform"][0, 0, 0] == pytest.approx(2560 / 7999) and audio["waveform"].shape[-1] == 2560


def test_a_video_file_is_read_as_its_frames_are(module, tmp_path, pack):
    from comfy_api.latest import InputImpl

    write_video = importlib.import_module(f"{pack.__name__}.dicetalk.media.video").write_video
    path = tmp_path / "talk.mp4"
    write_video(path, greys(12).numpy(), 25, np.linspace(0, 1, 7680, dtype=np.float32), 16000)
    portrait, audio, frames = run(module, InputImpl.VideoFromFile(str(path)), length=0.4)
    assert portrait.latent[:, 0, 0, 0].tolist() == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4], abs=0.03)
    assert audio["waveform"].shape[-1] == 6400
    write_video(tmp_path / "silent.mp4", greys(2).numpy(), 25)
    assert run(module, InputImpl.VideoFromFile(str(tmp_path / "silent.mp4")))[1] is None


def test_the_frames_go_back_into_the_videos_own_pictures(module, components, pack):
    paste = importlib.import_module(f"{pack.__name__}.nodes.paste_back").DiceTalkPasteBack
    portrait, _, frames = run(module, components, crop=True)
    left, top, right, bottom = portrait.prepared.crop_box
    (pasted,) = paste.execute(torch.ones(6, 128, 128, 3), portrait, 0.0).args
    assert pasted.shape == (6, 120, 160, 3) and pasted[:, top:bottom, left:right].min() > 0.99
    assert pasted[:, 0, -1, 0].tolist() == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5], abs=0.01)
    (twice,) = paste.execute(torch.ones(12, 128, 128, 3), portrait, 0.0, fps=25.0).args
    assert twice[:, 0, -1, 0].tolist() == pytest.approx([number / 20 for number in range(12)], abs=0.01)


@pytest.mark.parametrize(
    "given, problem",
    [
        ({"start": 3.0}, "video holds no pictures in that part"),
        ({"bboxes": [[]]}, "bboxes holds no box"),
        ({"mask": torch.ones(1, 9, 9)}, "mask is 9×9 pixels and the image 160×120"),
        ({"start": float("nan")}, "start is nan"),
    ],
)
def test_what_cannot_be_used_is_named(module, components, given, problem):
    with pytest.raises(ValueError, match=problem):
        run(module, components, **given)
