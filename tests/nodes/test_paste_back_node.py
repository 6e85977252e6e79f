"""What DICE-Talk Paste Back gives and refuses."""

import importlib

import pytest
import torch
from PIL import Image


@pytest.fixture(scope="module")
def module(pack):
    return importlib.import_module(f"{pack.__name__}.nodes.paste_back")


@pytest.fixture(scope="module")
def portrait(pack):
    prepare = importlib.import_module(f"{pack.__name__}.dicetalk.media.portrait").prepare_portrait
    kind = importlib.import_module(f"{pack.__name__}.nodes.types").EncodedPortrait
    original = torch.rand(1, 120, 200, 3, generator=torch.Generator().manual_seed(0))
    picture = Image.fromarray((original[0].numpy() * 255).astype("uint8"))
    return kind(prepare(picture, (60, 20, 100, 60), 64, crop=True), original, None, None, None)


def test_upscaled_frames_come_back_at_the_pictures_size(module, portrait):
    left, top, right, bottom = portrait.prepared.crop_box
    (pasted,) = module.DiceTalkPasteBack.execute(torch.ones(3, 256, 256, 4), portrait, 0.0).args
    assert pasted.shape == (3, 120, 200, 3) and pasted[:, top:bottom, left:right].min() > 0.99999
    assert torch.equal(pasted[:, :, right:], portrait.original[:, :, right:].expand(3, -1, -1, -1))


def test_a_background_goes_before_the_pictures_own(module, portrait):
    background = torch.zeros(4, 120, 200, 3)
    (pasted,) = module.DiceTalkPasteBack.execute(torch.ones(3, 64, 64, 3), portrait, 0.1, background).args
    assert len(pasted) == 4 and pasted.max() == 1 and pasted[:, :, 190:].max() == 0 and background.max() == 0


@pytest.mark.parametrize(
    "frames, background, problem",
    [
        ((2, 64, 96, 3), None, "frames are 96×64 pixels, another shape than the portrait's 64×64"),
        ((2, 64, 64, 3), (1, 64, 64, 3), "background is 64×64 pixels and the picture .* 200×120"),
    ],
)
def test_what_does_not_fit_is_named(module, portrait, frames, background, problem):
    background = None if background is None else torch.zeros(background)
    with pytest.raises(ValueError, match=problem):
        module.DiceTalkPasteBack.execute(torch.zeros(frames), portrait, 0.1, background)
