"""VAE and CLIP_VISION out of a checkpoint's folder: ComfyUI's networks, with what diffusers and transformers give."""

import dataclasses
import importlib
import json
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from PIL import Image
from project import GRAPHS


@pytest.fixture(scope="module")
def svd(pack):
    return importlib.import_module(f"{pack.__name__}.nodes.svd")


@pytest.fixture(scope="module")
def checkpoint(pack, tiny_checkpoint):
    finding = importlib.import_module(f"{pack.__name__}.dicetalk.checkpoints.finding")
    return finding.resolve_checkpoint(tiny_checkpoint)


@pytest.fixture(scope="module")
def theirs(checkpoint):
    from diffusers import AutoencoderKLTemporalDecoder
    from transformers import CLIPVisionModelWithProjection

    vae = AutoencoderKLTemporalDecoder.from_pretrained(checkpoint.svd, subfolder="vae", variant="fp16")
    return vae, CLIPVisionModelWithProjection.from_pretrained(
        checkpoint.svd, subfolder="image_encoder", variant="fp16", torch_dtype=torch.float32
    )


@pytest.fixture
def vae(svd, checkpoint):
    made = svd.CheckpointVae(checkpoint).of_dtype(torch.float32)
    made.device = torch.device("cpu")
    return made


def test_decoding_and_encoding_are_those_of_diffusers(vae, theirs):
    random = torch.Generator().manual_seed(0)
    latents, pixels = torch.randn(3, 4, 8, 8, generator=random), torch.rand(1, 64, 64, 3, generator=random)
    with torch.inference_mode():
        frames = theirs[0].decode(latents, num_frames=3).sample
        mode = theirs[0].encode(pixels.movedim(-1, 1) * 2 - 1).latent_dist.mode()
        torch.testing.assert_close(
            vae.decode(latents), (frames / 2 + 0.5).clamp(0, 1).movedim(1, -1), atol=1e-4, rtol=1e-3
        )
        torch.testing.assert_close(vae.encode(pixels), mode, atol=1e-4, rtol=1e-3)


def test_it_is_a_vae_like_those_that_comfyui_loads(vae, pack, comfy_nodes):
    import comfy.model_patcher
    import comfy.sd

    video = importlib.import_module(f"{pack.__name__}.nodes.video")
    assert isinstance(vae, comfy.sd.VAE) and video._is_temporal(vae)
    assert isinstance(vae.patcher, comfy.model_patcher.ModelPatcher)
    assert vae.latent_channels == 4 and vae.spacial_compression_decode() == 8 and vae.size > 0
    with torch.inference_mode():
        assert vae.decode_tiled(torch.zeros(1, 4, 8, 8), tile_x=8, tile_y=8, overlap=2).shape == (1, 64, 64, 3)
        made = comfy_nodes.VAEDecode().decode(vae, {"samples": torch.zeros(2, 4, 4, 4)})[0]
        again = comfy_nodes.VAEEncode().encode(vae, made)[0]["samples"]
    assert made.shape == (2, 32, 32, 3) and again.shape == (2, 4, 4, 4)


def test_another_precision_has_the_same_weights(svd, checkpoint, pack, monkeypatch):
    in_precision = importlib.import_module(f"{pack.__name__}.nodes.vae").in_precision
    half = svd.CheckpointVae(checkpoint).of_dtype(torch.bfloat16)
    whole = in_precision(half, torch.float32)
    assert isinstance(whole, svd.CheckpointVae) and whole.vae_dtype == torch.float32 != half.vae_dtype
    for name, weight in whole.get_sd().items():
        torch.testing.assert_close(weight, half.get_sd()[name].float(), msg=name)


def test_the_tower_is_that_of_transformers(svd, checkpoint, theirs):
    tower = svd.CheckpointClipVision(checkpoint)
    size = tower.image_size
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8))
    pixels = torch.from_numpy(np.asarray(picture) / 255).float()[None]
    mean, deviation = torch.tensor(tower.image_mean), torch.tensor(tower.image_std)
    with torch.inference_mode():
        ours = tower.encode_image(pixels, crop=False)["image_embeds"]
        truth = theirs[1](((pixels - mean) / deviation).movedim(-1, 1)).image_embeds
    assert float((ours - truth).norm() / truth.norm()) < 2e-3
    assert ours.shape == (1, 1024)


def test_nothing_is_read_before_it_is_used(svd, checkpoint, monkeypatch):
    reading = importlib.import_module(svd.__package__.removesuffix("nodes") + "dicetalk.checkpoints.svd")
    read = []
    usual = reading.load_svd_part
    monkeypatch.setattr(reading, "load_svd_part", lambda *args: read.append(args[1]) or usual(*args))
    vae, tower = svd.CheckpointVae(checkpoint), svd.CheckpointClipVision(checkpoint)
    assert not vae.is_dynamic() and not hasattr(tower, "is_dynamic") and not read  # ComfyUI's cache asks so
    assert vae.latent_channels == 4 and read == ["vae"]
    assert tower.image_size == 224 and vae.patcher and read == ["vae", "image_encoder"]


@pytest.mark.parametrize("kind", ["CheckpointVae", "CheckpointClipVision"])
def test_a_folder_that_is_missing_is_named_when_it_is_used(svd, checkpoint, kind, tmp_path):
    lacking = getattr(svd, kind)(dataclasses.replace(checkpoint, svd=None))
    for _ in range(2):
        with pytest.raises(ValueError, match="lacks Stable Video Diffusion.*download --only svd"):
            _ = lacking.patcher
    (tmp_path / "vae").mkdir()
    with pytest.raises(ValueError, match="cannot be read as Stable Video Diffusion's"):
        _ = getattr(svd, kind)(dataclasses.replace(checkpoint, svd=tmp_path)).patcher


def test_levels_that_comfyui_cannot_have_are_refused(svd, tmp_path):
    from diffusers import AutoencoderKLTemporalDecoder

    down = ("DownEncoderBlock2D",) * 2
    small = AutoencoderKLTemporalDecoder(block_out_channels=(64, 96), down_block_types=down, layers_per_block=1)
    small.save_pretrained(tmp_path / "vae")
    config = json.loads((tmp_path / "vae" / "config.json").read_text())
    with pytest.raises(ValueError, match="levels 64, 96 wide"):
        svd._sizes(config | {"in_channels": 3}, tmp_path)


def test_wider_levels_and_more_layers(svd, theirs):
    from diffusers import AutoencoderKLTemporalDecoder

    torch.manual_seed(0)
    down = ("DownEncoderBlock2D",) * 3
    other = AutoencoderKLTemporalDecoder(block_out_channels=(32, 64, 64), down_block_types=down, layers_per_block=2)
    other.eval()
    made = svd.CheckpointVae(None)
    made._build(svd._sizes(dict(other.config), "folder"), svd.comfy_weights(other.state_dict(), 3), dtype=torch.float32)
    latents, pixels = torch.randn(2, 4, 4, 4), torch.rand(1, 16, 16, 3)
    with torch.inference_mode():
        frames = other.decode(latents, num_frames=2).sample
        mode = other.encode(pixels.movedim(-1, 1) * 2 - 1).latent_dist.mode()
        torch.testing.assert_close(
            made.decode(latents), (frames / 2 + 0.5).clamp(0, 1).movedim(1, -1), atol=1e-4, rtol=1e-3
        )
        torch.testing.assert_close(made.encode(pixels), mode, atol=1e-4, rtol=1e-3)
    assert made.spacial_compression_decode() == 4


def test_quick_start_runs_with_comfyuis_own_loaders(server):
    graph = json.loads((GRAPHS / "quick_start.json").read_text())
    graph["3"] = {"class_type": "VAELoader", "inputs": {"vae_name": "svd_vae.safetensors"}}
    graph["4"] = {"class_type": "CLIPVisionLoader", "inputs": {"clip_name": "clip_vision_h.safetensors"}}
    graph["6"]["inputs"] |= {"clip_vision": ["4", 0], "vae": ["3", 0]}
    graph["10"]["inputs"]["vae"] = ["3", 0]
    made = server.run(graph)
    with av.open(str(server.saved_file({"12": made["12"]}))) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert [frame.shape for frame in frames] == [(64, 64, 3)] * 7
    assert any(np.any(frame != frames[0]) for frame in frames[1:])


def test_an_embedding_of_another_width_is_refused(pack):
    sampler = importlib.import_module(f"{pack.__name__}.nodes.sampling.sampler")
    network = SimpleNamespace(config={"cross_attention_dim": 1024})
    model = SimpleNamespace(model=SimpleNamespace(diffusion_model=network))
    sampler._require_width(model, torch.zeros(1, 1024))
    with pytest.raises(ValueError, match="clip_vision gives embeddings 768 wide instead of 1024"):
        sampler._require_width(model, torch.zeros(1, 768))
