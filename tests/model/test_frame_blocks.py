"""Residual blocks over frames: the same numbers as diffusers', in less memory."""

import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder
from diffusers.models.resnet import SpatioTemporalResBlock
from torch._subclasses.fake_tensor import FakeTensorMode

from dicetalk.checkpoints.tiny import CHANNELS
from dicetalk.model.frames import FrameResBlock, use_frame_blocks
from dicetalk.sampling.counting import ActivationTracker
from dicetalk.sampling.decoding import frame_bytes

RELEASED = ((128, 256, 512, 512), 2)


def decoder(channels, layers):
    down = ("DownEncoderBlock2D",) * len(channels)
    return AutoencoderKLTemporalDecoder(block_out_channels=channels, down_block_types=down, layers_per_block=layers)


def block(embedding, **options):
    torch.manual_seed(0)
    made = SpatioTemporalResBlock(32, 64, embedding, merge_factor=0.7, **options)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


CASES = [
    (None, {"merge_strategy": "learned", "switch_spatial_to_temporal_mix": True}),
    (16, {}),
]


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize(("embedding", "options"), CASES, ids=["decoder", "unet"])
def test_the_numbers_and_gradients_are_those_of_diffusers(embedding, options, grad):
    theirs, ours = block(embedding, **options), use_frame_blocks(torch.nn.Sequential(block(embedding, **options)))[0]
    assert type(ours) is FrameResBlock and theirs.state_dict().keys() == ours.state_dict().keys()
    x, indicator = torch.randn(6, 32, 4, 5), torch.zeros(2, 3)
    temb = None if embedding is None else torch.randn(6, embedding)
    activated = None if temb is None else torch.nn.functional.silu(temb)
    with torch.set_grad_enabled(grad):
        before = x.clone()
        expected, result = theirs(x, temb, indicator), ours(x, activated, indicator)
        assert torch.equal(x, before), "the input is whole"
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)
    if grad:
        expected.square().sum().backward()
        result.square().sum().backward()
        for (name, one), other in zip(theirs.named_parameters(), ours.parameters()):
            torch.testing.assert_close(other.grad, one.grad, atol=1e-3, rtol=1e-3, msg=name)


def test_decoded_frames_are_those_of_diffusers():
    torch.manual_seed(0)
    vae, latents = decoder(CHANNELS, 1), torch.randn(5, 4, 8, 8)
    with torch.no_grad():
        expected = vae.decode(latents, num_frames=5).sample
        result = use_frame_blocks(vae).decode(latents, num_frames=5).sample
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(("channels", "layers"), [RELEASED, (CHANNELS, 1)], ids=["released", "tiny"])
def test_decoding_takes_no_more_memory_than_is_planned_for(device, channels, layers):
    """Counted from shapes, at 512×512 in float32, of which float16 takes half."""
    with FakeTensorMode(), torch.no_grad(), torch.device(device):
        vae = use_frame_blocks(decoder(channels, layers))
        latents = torch.empty(3, 4, 64, 64)
        with ActivationTracker() as seen:
            vae.decode(latents, num_frames=3)
    planned, peak = frame_bytes(channels[0], 512, 512, 2), seen.peak / 3 / 2
    assert peak <= planned
    if channels == RELEASED[0]:
        assert 0.9 * planned <= peak <= 0.41e9
