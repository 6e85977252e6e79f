"""Stable Video Diffusion's VAE where ComfyUI has it in bfloat16, as on every card that knows the type."""

import importlib

import comfy_files
import pytest
import torch


@pytest.fixture(scope="module")
def vaes(comfy_nodes, tmp_path_factory):
    """The VAE of random weights in bfloat16, and the same in float32."""
    import comfy.sd
    import comfy.utils

    path = tmp_path_factory.mktemp("vae") / "svd_vae.safetensors"
    comfy_files.write_svd_vae(path)
    weights = comfy.utils.load_torch_file(str(path))
    return tuple(comfy.sd.VAE(sd=dict(weights), dtype=dtype) for dtype in (torch.bfloat16, torch.float32))


def distance(one, other):
    return float((one.float() - other).norm() / other.norm())


def test_the_portrait_is_encoded_in_float32(pack, vaes):
    rounded, exact = vaes
    portrait = importlib.import_module(f"{pack.__name__}.nodes.portrait")
    pixels = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        truth = exact.encode(pixels)
        usual, ours = distance(rounded.encode(pixels), truth), distance(portrait.encode_latent(rounded, pixels), truth)
    assert ours < 0.7 * usual, "what is left comes from weights that were rounded when they were loaded"
    assert rounded.vae_dtype == torch.bfloat16, "the VAE itself stays as it was"


@pytest.fixture
def video(pack, vaes):
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return importlib.import_module(f"{pack.__name__}.nodes.video").LatentVideo(latents, vaes[0], 12.5)


def test_frames_are_decoded_in_float16(video, vaes):
    rounded, exact = vaes
    with torch.inference_mode():
        truth, usual = exact.decode(video._latents), rounded.decode(video._latents)
    ours = video.get_components().images
    assert video._decoder.vae_dtype == torch.float16
    assert distance(ours, truth) < 0.7 * distance(usual, truth)


def test_a_vae_that_overflows_in_float16_is_used_as_comfyui_has_it(video, vaes, monkeypatch, caplog):
    decode = video._decoder.first_stage_model.decode
    monkeypatch.setattr(video._decoder.first_stage_model, "decode", lambda latents: decode(latents) * float("inf"))
    frames = video.get_components().images
    assert torch.isfinite(frames).all() and video._decoder is vaes[0]
    assert "overflows in float16" in caplog.text


def test_a_precision_that_the_user_chose_stays(pack, vaes, monkeypatch):
    import comfy.cli_args

    in_precision = importlib.import_module(f"{pack.__name__}.nodes.vae").in_precision
    assert in_precision(vaes[1], torch.float16) is vaes[1]
    monkeypatch.setattr(comfy.cli_args.args, "bf16_vae", True)
    assert in_precision(vaes[0], torch.float32) is vaes[0]
