"""What DICE-Talk Portrait takes and refuses, with stand-ins for the encoders."""

import gc
import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch


class Vae:
    def __init__(self, channels=4):
        self.channels = channels

    def encode(self, pixels):
        return torch.zeros(1, self.channels, pixels.shape[1] // 8, pixels.shape[2] // 8)


class ClipVision:
    image_size = 224

    def __init__(self, width=1024):
        self.width, self.seen = width, None

    def encode_image(self, image, crop):
        self.seen = image
        return {"image_embeds": torch.zeros(1, self.width)}


@pytest.fixture(scope="module")
def module(pack):
    return importlib.import_module(f"{pack.__name__}.nodes.portrait")


@pytest.fixture(autouse=True)
def no_preview(module, monkeypatch):
    monkeypatch.setattr(module, "shown", lambda *args: None)


@torch.inference_mode()  # as ComfyUI runs nodes; else the towers' activations stay for gradients
def run(module, image, bboxes=None, mask=None, vae=None, clip=None, short_side=128, crop=False, margin=0.5):
    node = module.DiceTalkPortrait
    return node.execute(image, clip or ClipVision(), vae or Vae(), short_side, crop, margin, bboxes, mask).args


def picture(height=120, width=200, channels=3):
    return torch.rand(1, height, width, channels, generator=torch.Generator().manual_seed(0))


BOX = {"x": 60.0, "y": 20.0, "width": 60.0, "height": 80.0}


def test_box_gives_the_mask_and_the_size(module):
    portrait, image, mask = run(module, picture(), BOX)
    assert image.shape == (1, 128, 192, 3) and mask.shape == (1, 128, 192)
    assert portrait.latent.shape == (1, 4, 16, 24) and portrait.face_mask.shape == (1, 1, 128, 192)
    assert portrait.prepared.face_box == (60, 20, 120, 100) and portrait.original.shape == (1, 120, 200, 3)
    assert 0.1 < mask.mean() < 0.5


@pytest.mark.parametrize("boxes", [BOX, [BOX], [[BOX]], [[BOX | {"width": 5.0}, BOX], [BOX | {"width": 99.0}]]])
def test_the_largest_box_of_the_first_picture_counts(module, boxes):
    assert module.largest_box(boxes) == (60, 20, 120, 100)


def test_a_box_around_landmarks_is_made_a_face_box(module):
    """Detect Face Landmarks' begin on the forehead: 12 % of their height above is the hairline."""
    box = BOX | {"label": "face", "score": 0.9}
    assert module.largest_box([[box]]) == pytest.approx((60, 20 - 0.12 * 80, 120, 100))
    assert run(module, picture(), [[box]])[0].prepared.face_box == pytest.approx((60, 20 - 0.12 * 80, 120, 100))
    assert module.largest_box([[box | {"label": "person"}]]) == (60, 20, 120, 100)


def test_mask_goes_before_boxes(module):
    mask = torch.zeros(1, 120, 200)
    mask[:, 10:50, 100:150] = 1
    portrait = run(module, picture(), BOX, mask)[0]
    assert portrait.prepared.face_box == (100, 10, 150, 50)


def test_one_of_two_faces_is_chosen(module, caplog):
    from skimage import data

    caplog.set_level("INFO")
    face = torch.from_numpy(data.astronaut()[:320, 80:400].astype(np.float32) / 255)
    two = torch.cat([face, face], dim=1)[None]
    execute = module.DiceTalkPortrait.execute
    portrait = execute(two, ClipVision(), Vae(), 128, False, 0.5, face="right").args[0]
    assert 320 < portrait.prepared.face_box[0] and "number 2 of 2 from the left" in caplog.text


def test_a_painted_mask_is_kept_where_that_is_asked(module):
    mask = torch.zeros(1, 120, 200)
    mask[:, 10:50, 100:150] = 0.6
    execute = module.DiceTalkPortrait.execute
    rectangle = execute(picture(), ClipVision(), Vae(), 128, False, 0.5, None, mask).args[2]
    painted = execute(picture(), ClipVision(), Vae(), 128, False, 0.5, None, mask, painted_mask=True).args[2]
    assert rectangle.max() > 0.99 and painted.max() == pytest.approx(0.6, abs=0.1)


@pytest.mark.parametrize(
    "change, kind",
    [
        (lambda image: (image * 255).round().to(torch.uint8), "0 to 255"),
        (lambda image: image * 255, "0 to 255"),
        (lambda image: image * 2 - 1, "-1 to 1"),
    ],
    ids=["bytes", "0 to 255", "-1 to 1"],
)
def test_pictures_on_another_scale_are_scaled_and_said(module, change, kind, caplog):
    usual = run(module, picture(), BOX)[1]
    assert caplog.text == ""
    torch.testing.assert_close(run(module, change(picture()), BOX)[1], usual, atol=0.01, rtol=0)
    assert f"image has values of {kind}" in caplog.text


def test_values_beyond_by_sharpening_or_hdr_stay(module, caplog):
    image = picture()
    image[0, :3] = 8.0
    image[0, 3:6] = -0.3
    assert (run(module, image, BOX)[1] - run(module, image.clamp(0, 1), BOX)[1]).abs().max() == 0
    assert "scaled" not in caplog.text
    with pytest.raises(ValueError, match="image holds torch.int32, and an IMAGE has numbers from 0 to 1"):
        run(module, picture().int(), BOX)


def test_alpha_is_left_out_and_clip_sees_a_square(module):
    clip = ClipVision()
    run(module, picture(channels=4), BOX, clip=clip)
    assert clip.seen.shape == (1, 224, 224, 3)


@pytest.mark.parametrize(
    "change, problem",
    [
        ({"vae": Vae(16)}, "vae gave a latent of shape .* another model's VAE. Connect the vae of Load DICE-Talk"),
        ({"bboxes": [[]]}, "bboxes holds no box"),
        ({"bboxes": "face"}, "bboxes does not hold boxes"),
        ({"bboxes": BOX | {"x": 500.0}}, "outside the image"),
        ({"mask": torch.ones(1, 64, 64)}, "mask is 64×64 pixels and the image 200×120"),
        ({"mask": torch.zeros(1, 120, 200)}, "mask"),
        ({"image": torch.full((1, 120, 200, 3), float("nan"))}, "not finite numbers"),
    ],
)
def test_what_cannot_be_used_is_named(module, change, problem):
    given = {"image": picture(), "bboxes": BOX} | change
    with pytest.raises(ValueError, match=problem):
        run(module, **given)


def test_no_face_says_how_to_give_one(module):
    with pytest.raises(ValueError, match="face"):
        run(module, torch.from_numpy(np.full((1, 120, 200, 3), 0.5, np.float32)))


def test_one_checkpoint_file_gives_the_same_as_separate_loaders(module, comfy_nodes, monkeypatch, tmp_path):
    import comfy_files
    import folder_paths
    from comfy_extras.nodes_video_model import ImageOnlyCheckpointLoader

    files = {"checkpoints": "svd_xt.safetensors", "clip_vision": "tower.safetensors", "vae": "vae.safetensors"}
    comfy_files.write_svd_checkpoint(tmp_path / files["checkpoints"])
    comfy_files.write_clip_vision(tmp_path / files["clip_vision"])
    comfy_files.write_svd_vae(tmp_path / files["vae"])
    monkeypatch.setattr(folder_paths, "get_full_path_or_raise", lambda kind, name: str(tmp_path / name))

    clip, vae = ImageOnlyCheckpointLoader().load_checkpoint(files["checkpoints"])[1:]
    together, *_ = run(module, picture(), BOX, vae=vae, clip=clip, short_side=64)
    clip = vae = _unloaded()
    (clip,) = comfy_nodes.CLIPVisionLoader().load_clip(files["clip_vision"])
    (vae,) = comfy_nodes.VAELoader().load_vae(files["vae"])
    apart, *_ = run(module, picture(), BOX, vae=vae, clip=clip, short_side=64)
    clip = vae = _unloaded()
    assert together.latent.std() > 0 and torch.equal(together.latent, apart.latent)
    assert together.clip_embeds.std() > 0 and torch.equal(together.clip_embeds, apart.clip_embeds)

    package = module.__name__.rpartition(".")[0]
    svd = importlib.import_module(f"{package}.svd")
    file = SimpleNamespace(folder=lambda kind: tmp_path / files["checkpoints"])
    clip, vae = svd.CheckpointClipVision(file), svd.CheckpointVae(file)
    own, *_ = run(module, picture(), BOX, vae=vae, clip=clip, short_side=64)  # as Load DICE-Talk gives them
    clip = vae = _unloaded()
    torch.testing.assert_close(own.latent, together.latent, rtol=1e-3, atol=1e-3 * together.latent.std().item())
    torch.testing.assert_close(own.clip_embeds, together.clip_embeds, rtol=1e-2, atol=1e-2)


def _unloaded():
    """Have ComfyUI forget its models, gigabytes here."""
    import comfy.model_management

    comfy.model_management.unload_all_models()
    gc.collect()
