"""ComfyUI's switches that touch models: the native MODEL loads and samples under each that a CPU can follow.

What places weights (--lowvram, --novram, --gpu-only …) is decided before anything is loaded, and tried on a server.
"""

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
def test_the_model_loads_and_samples_under_a_switch(small, unet_file, monkeypatch, switch):
    import comfy.cli_args
    import comfy.model_management

    assert hasattr(comfy.cli_args.args, switch)
    monkeypatch.setattr(comfy.cli_args.args, switch, True)
    if hasattr(comfy.model_management, switch.upper()):  # what is read of it when ComfyUI starts
        monkeypatch.setattr(comfy.model_management, switch.upper(), True)
    model = small.module("nodes.sampling.model").load_unet(unet_file)
    assert model.model.diffusion_model.dtype == TYPES.get(switch, model.model.diffusion_model.dtype)
    sampled = small.sample(small.guider(model), steps=2)[0]
    assert torch.isfinite(sampled).all() and sampled.shape == (7, 4, 4, 4)
    expected = small.sample(steps=2)[0]
    off = (sampled.float() - expected).norm() / expected.norm()
    assert off < (0.5 if "fp8" in switch else 0.1 if "16" in switch else 1e-3)
