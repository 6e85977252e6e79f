"""ComfyUI's switches that touch models: the native MODEL loads and samples under each that a CPU can follow.

What places weights (--lowvram, --novram, --gpu-only …) is decided before anything is loaded, and tried on a server.
"""

import comfy_files
import pytest
import torch
from small_model import SmallModel

TYPES = {
    "fp16_unet": torch.float16,
    "bf16_unet": torch.bfloat16,
    "fp32_unet": torch.float32,
    "fp64_unet": torch.float64,
    "fp8_e4m3fn_unet": torch.float8_e4m3fn,
    "fp8_e5m2_unet": torch.float8_e5m2,
}
SWITCHES = [*TYPES, "force_fp16", "force_fp32", "force_channels_last", "supports_fp8_compute", "fp16_intermediates"]
SWITCHES += ["force_upcast_attention", "dont_upcast_attention", "use_split_cross_attention", "deterministic"]


@pytest.fixture(scope="module")
def small(pack, comfy_nodes):
    return SmallModel(pack)


@pytest.fixture(scope="module")
def unet_file(small, tmp_path_factory):
    return small.save(tmp_path_factory.mktemp("unet") / "unet.pth")


@pytest.mark.parametrize("switch", SWITCHES)
def test_the_model_loads_and_samples_under_a_switch(small, unet_file, monkeypatch, request, switch):
    import comfy.cli_args
    import comfy.model_management

    assert hasattr(comfy.cli_args.args, switch)
    monkeypatch.setattr(comfy.cli_args.args, switch, True)
    if hasattr(comfy.model_management, switch.upper()):  # what is read of it when ComfyUI starts
        monkeypatch.setattr(comfy.model_management, switch.upper(), True)
    if switch == "deterministic":  # as ComfyUI does when it starts, but with an error for what cannot be
        request.addfinalizer(lambda: torch.use_deterministic_algorithms(False))
        torch.use_deterministic_algorithms(True)
    model = small.module("nodes.sampling.model").load_unet(unet_file)
    assert model.model.diffusion_model.dtype == TYPES.get(switch, model.model.diffusion_model.dtype)
    sampled = small.sample(small.guider(model), steps=2)[0]
    assert torch.isfinite(sampled).all() and sampled.shape == (7, 4, 4, 4)
    expected = small.sample(steps=2)[0]
    off = (sampled.float() - expected).norm() / expected.norm()
    assert off < (0.5 if "fp8" in switch else 0.1 if "16" in switch else 1e-3)


@pytest.mark.parametrize("kind", ["basic", "split", "sub_quad", "pytorch"])
def test_every_kind_of_attention_gives_the_same_frames(small, monkeypatch, kind):
    """ComfyUI chooses one when it starts: --use-split-cross-attention, --use-quad-cross-attention, and so on."""
    import comfy.ldm.modules.attention as kinds

    calls, chosen = [], getattr(kinds, f"attention_{kind}")
    module = small.module("nodes.sampling.model")
    expected = small.sample(steps=2)[0]
    monkeypatch.setattr(module, "optimized_attention", lambda *a, **k: calls.append(1) or chosen(*a, **k))
    sampled = small.sample(steps=2)[0]
    assert calls and (sampled - expected).norm() / expected.norm() < 1e-3


@pytest.fixture(scope="module")
def checkpoint(small, tiny_checkpoint):
    return small.module("dicetalk.checkpoints.finding").resolve_checkpoint(tiny_checkpoint)


@pytest.mark.parametrize("switch", ["fp16_vae", "bf16_vae", "fp32_vae", "cpu_vae"])
@pytest.mark.parametrize("kind", ["of_the_checkpoint", "of_comfyui"])
def test_a_portrait_is_encoded_and_a_clip_decoded_under_a_switch_of_the_vae(
    small, checkpoint, tmp_path, monkeypatch, kind, switch
):
    import comfy.cli_args
    import comfy.sd
    import comfy.utils

    def vae(**options):
        if kind == "of_comfyui":
            return comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(tmp_path / "vae.safetensors")), **options)
        made = small.module("nodes.svd").CheckpointVae(checkpoint)
        return made.of_dtype(options["dtype"]) if options else made

    comfy_files.write_small_vae(tmp_path / "vae.safetensors")
    pixels = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    exact = vae(dtype=torch.float32)
    assert getattr(comfy.cli_args.args, switch) is False
    monkeypatch.setattr(comfy.cli_args.args, switch, True)
    switched = vae()
    wanted = {"fp16_vae": torch.float16, "bf16_vae": torch.bfloat16}.get(switch, torch.float32)
    with torch.inference_mode():
        latent, truth = small.module("nodes.portrait").encode_latent(switched, pixels), exact.encode(pixels)
        video = small.module("nodes.video").LatentVideo(truth.repeat(3, 1, 1, 1), switched, 12.5)
        frames, expected = video.get_components().images, exact.decode(truth.repeat(3, 1, 1, 1))
    assert switched.vae_dtype == wanted
    assert latent.dtype == torch.float32 and (latent - truth).norm() / truth.norm() < 0.05
    assert frames.shape == (3, 64, 64, 3) and (frames.float() - expected).abs().mean() < 0.02
