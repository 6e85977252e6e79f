"""Speech and emotion strength in ComfyUI: with three-way guidance, windows, and branches apart."""

import dataclasses

import pytest
import torch
from small_model import SmallModel


@pytest.fixture(scope="module")
def small(pack, comfy_nodes):
    return SmallModel(pack)


def sampled(small, patcher=None, **strengths):
    conditions = dataclasses.replace(small.conditions(frames=30), **strengths)
    return small.sample(small.guider(patcher, conditions), steps=2)[0]


@pytest.mark.parametrize("name, adapter", [("speech_strength", 0), ("emotion_strength", 1)])
def test_a_strength_multiplies_what_one_adapter_adds(small, name, adapter):
    """Values are linear in their weights: half the strength is half the weights."""
    plain = sampled(small)
    assert torch.equal(sampled(small, speech_strength=1.0, emotion_strength=1.0), plain)
    half = sampled(small, **{name: 0.5})
    assert (half - plain).abs().max() > 1e-2
    network = small.patcher.model.diffusion_model
    weights = [weight for key, weight in network.named_parameters() if f"to_v_ip.{adapter}." in key]
    kept = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight in weights:
            weight.mul_(0.5)
        try:
            expected = sampled(small)
        finally:
            for weight, before in zip(weights, kept):
                weight.copy_(before)
    torch.testing.assert_close(half, expected, rtol=0, atol=2e-3)


def test_strengths_hold_for_branches_apart(small, monkeypatch):
    together = sampled(small, speech_strength=0.5, emotion_strength=1.5)

    def apart(self, too_large, compute, *args):
        self.together = False
        return compute(*args)

    monkeypatch.setattr(small.module("dicetalk.sampling.economy").Economy, "attempt", apart)
    torch.testing.assert_close(
        sampled(small, speech_strength=0.5, emotion_strength=1.5), together, rtol=1e-3, atol=5e-3
    )


@pytest.mark.parametrize("node", ["DiceTalkSampler", "DiceTalkGuider"])
def test_the_inputs_come_last_so_that_saved_graphs_load(small, node):
    schema = getattr(small.module("nodes.sampling.sampler"), node).define_schema()
    names = [each.id for each in schema.inputs]
    place = names.index("smaller_windows") + 1
    assert names[place : place + 2] == ["speech_strength", "emotion_strength"]
    assert all(
        each.optional and each.default == 1.0 and (each.min, each.max) == (0.0, 2.0)
        for each in schema.inputs[place : place + 2]
    )
