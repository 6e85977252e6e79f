"""The UNet and the pose guider: names, shapes, configuration, precision."""

import json

import pytest
import torch
import torch.nn.functional as F
from project import STATE_DICTS

from dicetalk.measure.verify import fill
from dicetalk.model.pose_guider import PoseGuider
from dicetalk.model.unet import DiceTalkUNet, unet_config_from_state_dict

SMALL = {
    "block_out_channels": (32, 64, 64, 64),
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 96,
    "layers_per_block": 1,
    "cross_attention_dim": 64,
    "num_attention_heads": (1, 1, 1, 1),
}


def inputs(batch=2, frames=3, size=8, dtype=torch.float32, audio_frames=None, emotion_frames=1):
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    return {
        "sample": random(batch, frames, 8, size, size),
        "timestep": torch.tensor([0.3]),
        "encoder_hidden_states": random(batch, 1, 1, 64),
        "added_time_ids": torch.tensor([[12.5, 8, 16]]).expand(batch, -1),
        "audio_tokens": random(batch, audio_frames or frames, 5, 64),
        "emotion_tokens": random(batch, emotion_frames, 5, 64),
        "pose_features": random(1, 1, 32, size, size),
        "face_mask": torch.ones(1, 1, 8 * size, 8 * size, dtype=dtype),
    }


@pytest.fixture(scope="module")
def unet():
    return fill(DiceTalkUNet(**SMALL))


@torch.no_grad()
def run(unet, **given):
    return unet(**given, return_dict=False)[0]


def test_released_sizes_and_names():
    published = json.loads(STATE_DICTS.read_text())
    with torch.device("meta"):
        parts = {"unet": DiceTalkUNet(), "pose_guider": PoseGuider()}
    for name, part in parts.items():
        assert {key: list(tensor.shape) for key, tensor in part.state_dict().items()} == published[name]
    assert sum(tensor.numel() for tensor in parts["unet"].state_dict().values()) == 1_626_859_242


@pytest.mark.parametrize("settings", [{}, SMALL], ids=["released", "small"])
def test_configuration_is_read_off_the_tensors(settings):
    with torch.device("meta"):
        unet = DiceTalkUNet(**settings)
    found = unet_config_from_state_dict(unet.state_dict())
    assert found == {name: unet.config[name] for name in found}


def test_the_inner_levels_may_be_those_of_another_call(unet):
    """With its own inner levels a call gives its own result, without computing them; with others' another."""
    given = inputs()
    kept = torch.empty(6, unet.deep_channels, 8, 8)
    expected = run(unet, **given, deep_out=kept)
    assert torch.equal(run(unet, **given), expected)
    reached = []
    inner = (*unet.down_blocks[1:], unet.mid_block, *unet.up_blocks[:-1])
    hooks = [block.resnets[0].register_forward_hook(lambda *_: reached.append(1)) for block in inner]
    assert torch.equal(run(unet, **given, deep=kept), expected) and not reached
    run(unet, **given)
    assert len(reached) == len(inner)
    for hook in hooks:
        hook.remove()
    assert not torch.allclose(run(unet, **given, deep=kept + 1), expected, atol=1e-3)


def test_a_batch_that_is_too_large_for_a_kernel_is_split(unet, monkeypatch):
    expected = unet(**inputs()).sample
    sizes = []
    attend = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v: sizes.append(len(q)) or attend(q, k, v))
    monkeypatch.setattr("dicetalk.model.unet.ATTENTION_BATCH", 5)
    assert torch.allclose(unet(**inputs()).sample, expected, atol=1e-6)
    assert max(sizes) == 5


def test_frames_that_share_their_tokens_may_give_them_once(unet):
    given = inputs()
    once = run(unet, **given)
    given["emotion_tokens"] = given["emotion_tokens"].expand(-1, 3, -1, -1)
    given["encoder_hidden_states"] = given["encoder_hidden_states"].expand(-1, 3, -1, -1)
    given["pose_features"] = given["pose_features"].expand(2, 3, -1, -1, -1)
    assert torch.allclose(run(unet, **given), once, atol=1e-4)


def test_tokens_act_only_inside_the_mask_and_by_their_scale(unet):
    given = inputs()
    silent = run(unet, **given, audio_scale=0.0, emotion_scale=0.0)
    assert not torch.allclose(run(unet, **given), silent, atol=1e-3)
    other = given | {"audio_tokens": given["audio_tokens"] * 2}
    assert torch.equal(run(unet, **other, audio_scale=0.0, emotion_scale=0.0), silent)


def test_sizes_that_the_levels_do_not_divide(unet):
    assert run(unet, **inputs(size=10)).shape == (2, 3, 4, 10, 10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    unet = fill(DiceTalkUNet(**SMALL), dtype=dtype)
    result = run(unet, **inputs(size=16, dtype=dtype))
    assert result.dtype == dtype and torch.isfinite(result).all()


def test_saved_and_loaded_the_diffusers_way(unet, tmp_path):
    unet.save_pretrained(tmp_path)
    again = DiceTalkUNet.from_pretrained(tmp_path)
    given = inputs(size=16)
    assert torch.allclose(run(again, **given), run(unet, **given), atol=1e-3)


def test_gradients_reach_the_adapters(unet):
    unet = fill(DiceTalkUNet(**SMALL)).requires_grad_(True)
    unet(**inputs(), return_dict=False)[0].square().mean().backward()
    adapters = [p for name, p in unet.named_parameters() if "_ip." in name]
    assert adapters and all(p.grad is not None and p.grad.abs().sum() > 0 for p in adapters)


def backward(unet):
    """Gradients of all parameters and of the sample, and the bytes that the forward pass kept for them."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    given = inputs()
    given["sample"].requires_grad_()
    weights = {parameter.untyped_storage().data_ptr() for parameter in unet.parameters()}
    unet.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        prediction = unet(**given, return_dict=False)[0]
    size = sum(count for storage, count in kept.items() if storage not in weights)
    prediction.square().mean().backward()
    found = {name: each.grad.clone() for name, each in unet.named_parameters() if each.grad is not None}
    return found | {"sample": given["sample"].grad}, size


def test_checkpointed_gradients_are_the_same_for_less_memory():
    own = fill(DiceTalkUNet(**SMALL)).requires_grad_(True)
    plain, all_kept = backward(own)
    own.enable_gradient_checkpointing()
    assert own.is_gradient_checkpointing
    checkpointed, kept = backward(own)
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        assert torch.equal(gradient, checkpointed[name]), name
    assert kept < all_kept / 4
    calls = []
    for block in (*own.down_blocks, own.mid_block, *own.up_blocks):
        block.resnets[0].register_forward_pre_hook(lambda *_, block=block: calls.append(block))
    backward(own)
    assert all(calls.count(block) == 2 for block in calls) and len(calls) == 2 * 9, "each layer runs once more"
    calls.clear()
    own.disable_gradient_checkpointing()
    assert backward(own)[1] == all_kept and len(calls) == 9


def test_mid_features_are_what_the_mid_block_gives(unet):
    prediction, features = unet(**inputs(), return_dict=False, mid_features=True)
    assert torch.equal(prediction, run(unet, **inputs()))
    assert features.shape == (2 * 3, 64, 1, 1) and features.abs().max() > 0
