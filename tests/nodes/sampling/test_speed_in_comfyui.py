"""What sampling may leave out, in ComfyUI: neutral it is the published result, and chosen it is the library's."""

import copy
import logging
from unittest.mock import Mock

import pytest
import torch
from small_model import LATENT, SmallModel

FRAMES = 30


@pytest.fixture(scope="module")
def small(pack, comfy_nodes):
    return SmallModel(pack)


@pytest.fixture(scope="module")
def speed(small):
    return small.module("dicetalk.sampling.speed")


def sampled(small, savings=None, sampler="euler", sigmas=None, steps=4, patcher=None, frames=FRAMES, **options):
    """The latents, and the size of every batch that went through the UNet."""
    import comfy.patcher_extension

    patcher = (patcher or small.patcher).clone()
    pictures = []

    def count(executor, x, *args, **kwargs):
        pictures.append(len(x))
        return executor(x, *args, **kwargs)

    patcher.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "count", count)
    if savings is not None:
        options["savings"] = savings
    guider = small.guider(patcher, small.conditions(frames), **options)
    return small.sample(guider, sampler, sigmas=sigmas, steps=steps)[0], pictures


@pytest.mark.parametrize(
    "choice, sampler, schedule",
    [
        ({"guidance_reuse": 3}, "euler", "karras"),
        ({"deep_cache": 2}, "euler", "karras"),
        ({"clamp_windows": True}, "euler", "karras"),
        ({}, "dpmpp_2m", "align_your_steps"),
        ({"guidance_reuse": 2, "deep_cache": 3, "clamp_windows": True}, "dpmpp_2m", "align_your_steps"),
    ],
)
def test_the_frames_are_the_librarys(small, speed, choice, sampler, schedule):
    steps = 4
    plain, _ = sampled(small, steps=steps)
    savings = speed.Savings(**choice)
    schedules = small.module("dicetalk.sampling.schedules")
    sigmas = schedules.sigmas_of(schedule, steps)
    latents, _ = sampled(small, savings, sampler, sigmas and torch.tensor(sigmas), steps)
    unet = copy.copy(small.patcher.model.diffusion_model)
    unet.__class__ = small.module("dicetalk.model.unet").DiceTalkUNet
    expected = small.module("dicetalk.sampling.loop").sample(
        FloatUNet(unet),
        small.conditions(FRAMES),
        torch.randn(FRAMES + 25, *LATENT, generator=torch.Generator().manual_seed(0)),
        schedules.make_scheduler(sampler),
        steps,
        savings=savings,
        sigmas=sigmas,
    )
    expected = expected / small.module("dicetalk.model.settings").LATENT_SCALE
    off = (latents - expected).abs().mean() / expected.abs().mean()
    assert off < 0.01 < 0.02 < (latents - plain).abs().mean() / plain.abs().mean()


class FloatUNet:
    """ComfyUI's layers, called as the library calls its own."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, unet):
        self._unet, self.deep_channels = unet, unet.deep_channels

    def __call__(self, *args, **kwargs):
        with torch.inference_mode():
            return self._unet(*args, **kwargs)


def test_neutral_it_is_bit_for_bit_the_published_result(small, speed):
    plain, pictures = sampled(small)
    neutral, same = sampled(small, speed.Savings())
    assert torch.equal(plain, neutral) and pictures == same


def test_pictures_are_left_out(small, speed):
    _, plain = sampled(small, steps=4)
    _, reused = sampled(small, speed.Savings(guidance_reuse=2), steps=4)
    _, clamped = sampled(small, speed.Savings(clamp_windows=True), steps=4)
    assert sum(reused) < sum(plain) and sum(clamped) == 4 * 3 * FRAMES


@pytest.mark.parametrize("sampler", ["heun", "uni_pc"])
def test_samplers_that_evaluate_otherwise_give_finite_frames(small, speed, sampler):
    latents, _ = sampled(small, speed.Savings(2, 2, True), sampler, steps=4)
    assert latents.isfinite().all()


def test_functions_after_guidance_get_every_branch(small, speed):
    patcher, seen = small.patcher.clone(), []
    patcher.set_model_sampler_post_cfg_function(lambda args: seen.append(args["uncond_denoised"]) or args["denoised"])
    plain, pictures = sampled(small, patcher=patcher)
    reused, same = sampled(small, speed.Savings(guidance_reuse=3), patcher=patcher)
    assert torch.equal(plain, reused) and pictures == same and len(seen) == 2 * 4


def test_inner_levels_are_computed_with_easycache(small, speed, caplog):
    from comfy_extras.nodes_easycache import EasyCacheNode

    patcher = EasyCacheNode.execute(small.patcher, 0.05, 0.15, 0.95, False).result[0]
    with caplog.at_level(logging.WARNING):
        cached, _ = sampled(small, speed.Savings(deep_cache=2), patcher=patcher)
    assert "deep_cache has no effect with EasyCache" in caplog.text
    assert torch.equal(cached, sampled(small, patcher=patcher)[0])


def test_branches_one_after_the_other_give_the_same(small, speed, monkeypatch):
    savings = speed.Savings(2, 2, True)
    together, _ = sampled(small, savings)

    def apart(self, too_large, compute, *args):
        self.together = False
        return compute(*args)

    monkeypatch.setattr(small.module("dicetalk.sampling.economy").Economy, "attempt", apart)
    torch.testing.assert_close(sampled(small, savings)[0], together, rtol=1e-3, atol=5e-3)


def test_a_compiled_model_takes_the_inner_levels_of_another_step(small, speed, monkeypatch):
    from comfy.ldm.modules.attention import attention_pytorch
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    monkeypatch.setattr(small.module("nodes.sampling.model"), "optimized_attention", attention_pytorch)
    compiled, savings = small.patcher.clone(), speed.Savings(deep_cache=2, clamp_windows=True)
    set_torch_compile_wrapper(model=compiled, backend="eager")
    torch._dynamo.reset()

    def run(patcher):
        guider = small.guider(patcher, small.conditions(25), savings=savings)
        return small.sample(guider, steps=3)[0]

    torch.testing.assert_close(run(compiled), run(small.patcher), rtol=1e-3, atol=5e-3)


@pytest.mark.parametrize("name, steps, sampler", [("fast", 12, "euler"), ("draft", 8, "euler")])
def test_a_speed_sets_what_the_other_inputs_say(small, speed, monkeypatch, name, steps, sampler):
    node = small.module("nodes.sampling.sampler")
    made = {}
    guider = Mock()
    guider.sample.side_effect = lambda noise, start, method, sigmas, **_: (
        made.update(sigmas=sigmas, method=method) or (start)
    )

    def make_guider(**inputs):
        made.update(inputs)
        return guider, {"samples": torch.zeros(3, *LATENT)}

    monkeypatch.setattr(node, "make_guider", make_guider)
    chosen = {"seed": 0, "steps": 25, "sampler_name": "euler", "scheduler": "karras", "deep_cache": 1}
    node.sample(model=small.patcher, speed=name, **chosen)
    assert made["deep_cache"] == speed.SPEEDS[name]["deep_cache"] > 1
    assert made["clamp_windows"] is speed.SPEEDS[name]["clamp_windows"]
    assert made["method"].sampler_function.__name__ == f"sample_{sampler}" and len(made["sigmas"]) == steps + 1
    assert made["sigmas"][0] == pytest.approx(700) and made["sigmas"][-1] == 0
    made.clear()
    node.sample(model=small.patcher, **chosen)
    assert made["deep_cache"] == 1 and "clamp_windows" not in made and len(made["sigmas"]) == 26


@pytest.mark.parametrize("scheduler", ["karras", "align_your_steps"])
def test_denoise_takes_the_last_sigmas_of_more_steps(small, monkeypatch, scheduler):
    node = small.module("nodes.sampling.sampler")
    made = []

    def sample(noise, start, method, sigmas, **_):
        made.append(sigmas.tolist())
        return start

    guider = Mock()
    guider.sample.side_effect = sample
    monkeypatch.setattr(node, "make_guider", lambda **_: (guider, {"samples": torch.zeros(3, *LATENT)}))
    for steps, denoise in ((20, 1.0), (10, 0.5), (10, 1.0)):
        node.sample(0, steps, "euler", scheduler, denoise=denoise, model=small.patcher)
    whole, half, short = made
    assert len(whole) == 21 and half == whole[-11:]
    assert len(short) == 11 and short[0] == whole[0] == pytest.approx(700)
    with pytest.raises(ValueError, match="denoise is nan"):
        node.sample(0, 10, "euler", scheduler, denoise=float("nan"), model=small.patcher)
