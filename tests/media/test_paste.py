import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from dicetalk.errors import InputError
from dicetalk.media.paste import edge_weights, paste_back
from dicetalk.media.portrait import prepare_portrait

FACE = (178, 58, 272, 179)
BOX = (20, 10, 60, 50)


def tensor(picture):
    return torch.from_numpy(np.array(picture, np.float32) / 255)[None]


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def outside(pictures, box):
    left, top, right, bottom = box
    pictures = pictures.clone()
    pictures[:, top:bottom, left:right] = 0
    return pictures


@pytest.mark.parametrize("short_side, scale", [(256, 1), (256, 2), (128, 1)])
def test_the_portraits_own_picture_pasted_back_is_the_original(short_side, scale):
    astronaut = Image.fromarray(data.astronaut())
    prepared = prepare_portrait(astronaut, FACE, short_side, crop=True)
    size = [scale * side for side in prepared.image.size]
    original = tensor(astronaut)
    pasted = paste_back(tensor(prepared.image.resize(size, Image.Resampling.LANCZOS)), original, prepared.crop_box)
    assert torch.equal(outside(pasted, prepared.crop_box), outside(original, prepared.crop_box))
    left, top, right, bottom = prepared.crop_box
    error = (pasted - original)[:, top:bottom, left:right].abs()
    # The crop is 188 pixels wide: there and back over more pixels costs some two levels of 255, over 128 fine detail.
    assert error.mean() < (0.008 if short_side > right - left else 0.02)
    flipped = paste_back(tensor(prepared.image).flip(2), original, prepared.crop_box)
    assert (flipped - original)[:, top:bottom, left:right].abs().mean() > 0.05


def test_an_uncropped_portrait_fills_the_picture_to_its_edges():
    frames, original = noise(2, 64, 96, 3), noise(1, 64, 96, 3, seed=1)
    assert torch.equal(paste_back(frames, original, (0, 0, 96, 64), 0.3), frames)
    assert paste_back(noise(1, 32, 48, 3), original, (0, 0, 96, 64)).shape == (1, 64, 96, 3)


def test_without_feather_the_crop_is_the_frame_and_the_rest_the_original():
    frames, original = noise(3, 40, 40, 3), noise(1, 64, 96, 3, seed=1)
    pasted = paste_back(frames, original, BOX, 0)
    assert torch.equal(pasted[:, 10:50, 20:60], frames)
    assert torch.equal(outside(pasted, BOX), outside(original, BOX).expand(3, -1, -1, -1))


def test_what_memory_cannot_hold_is_refused_before_the_work(monkeypatch):
    frames, original = noise(100, 8, 8, 3), noise(1, 64, 96, 3)
    needed = 100 * original.nbytes
    monkeypatch.setattr("dicetalk.media.paste.free_memory", lambda device: needed / 0.9 + 1)
    assert paste_back(frames, original, BOX).shape == (100, 64, 96, 3)
    monkeypatch.setattr("dicetalk.media.paste.free_memory", lambda device: needed / 4)
    with pytest.raises(InputError, match="100 pictures of 96×64 pixels need 0.0 GB .*: paste into a smaller"):
        paste_back(frames, original, BOX)


def test_feathered_edge():
    weights = edge_weights(BOX, (96, 64), 0.25)
    middle = weights[20]
    depth = (torch.arange(10) + 0.5) / 10
    assert weights.shape == (40, 40) and torch.allclose(middle[:10], depth**2 * (3 - 2 * depth), atol=1e-6)
    assert torch.equal(middle, middle.flip(0)) and torch.equal(weights, weights.T)
    assert (middle[10:30] == 1).all() and 0 < weights[0, 0] < 1e-3
    pasted = paste_back(torch.ones(1, 40, 40, 3), torch.zeros(1, 64, 96, 3), BOX, 0.25)
    assert torch.equal(pasted[0, 10:50, 20:60, 1], weights)


def test_edges_on_the_pictures_edge_are_not_faded():
    weights = edge_weights((0, 10, 40, 64), (96, 64), 0.2)
    assert weights[40, 0] == 1 and weights[-1, 20] == 1 and weights[0, 20] < 0.1 and weights[20, -1] < 0.1


def test_two_faces_by_two_passes():
    original = noise(1, 64, 96, 3)
    left, right = (4, 10, 44, 50), (50, 10, 90, 50)
    first = paste_back(torch.zeros(5, 40, 40, 3), original, left, 0)
    both = paste_back(torch.ones(3, 80, 80, 3), first, right, 0)
    assert both.shape == (5, 64, 96, 3)
    assert (both[:, 10:50, 4:44] == 0).all() and (both[:, 10:50, 50:90] == 1).all()
    assert torch.equal(
        outside(outside(both, left), right), outside(outside(original, left), right).expand(5, -1, -1, -1)
    )
    assert (first[:, 10:50, 50:90] == original[:, 10:50, 50:90]).all()


def test_the_shorter_clip_holds_its_last_frame():
    frames, clip = noise(2, 40, 40, 3), noise(4, 64, 96, 3, seed=1)
    pasted = paste_back(frames, clip, BOX, 0)
    assert torch.equal(pasted[:, 10:50, 20:60], frames[[0, 1, 1, 1]])
    assert torch.equal(outside(pasted, BOX), outside(clip, BOX))
    pasted = paste_back(noise(4, 40, 40, 3), clip[:2], BOX, 0)
    assert torch.equal(outside(pasted, BOX), outside(clip[[0, 1, 1, 1]], BOX))


def test_pieces_make_no_difference(monkeypatch):
    frames, original = noise(7, 30, 30, 3), noise(1, 64, 96, 3, seed=1)
    whole = paste_back(frames, original, BOX)
    monkeypatch.setattr("dicetalk.media.paste._PIECE", 2 * 40 * 40)
    done = []
    assert torch.equal(paste_back(frames, original, BOX, on_piece=lambda *at: done.append(at)), whole)
    assert done == [(2, 7), (4, 7), (6, 7), (7, 7)]


def test_half_precision_keeps_the_backgrounds_type():
    pasted = paste_back(noise(2, 80, 80, 3), noise(1, 64, 96, 3).half(), BOX)
    assert pasted.dtype == torch.float16 and pasted.isfinite().all()


@pytest.mark.parametrize(
    "box, feather, problem",
    [
        (BOX, 0.6, "feather"),
        (BOX, float("nan"), "feather"),
        ((20, 10, 97, 50), 0.1, "inside the picture"),
        ((20, 10, 20, 50), 0.1, "inside the picture"),
    ],
)
def test_what_cannot_be_pasted_is_named(box, feather, problem):
    with pytest.raises(InputError, match=problem):
        paste_back(noise(1, 40, 40, 3), noise(1, 64, 96, 3), box, feather)
