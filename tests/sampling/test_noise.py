"""The published script's noise; that its numbers are those of CUDA takes a GPU, which this cannot show."""

import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor

from dicetalk.errors import InputError
from dicetalk.sampling import noise
from dicetalk.sampling.noise import PUBLISHED_SEED, published_noise

SHAPE = (27, 4, 8, 6)


def test_it_is_what_diffusers_draws_for_one_video_in_half_precision():
    generator = torch.Generator().manual_seed(PUBLISHED_SEED)
    expected = randn_tensor((1, *SHAPE), generator=generator, device=torch.device("cpu"), dtype=torch.float16)
    drawn = noise.drawn(SHAPE, PUBLISHED_SEED, torch.device("cpu"))
    assert torch.equal(drawn, expected[0].float()) and drawn.dtype == torch.float32
    assert abs(float(drawn.std()) - 1) < 0.05


def test_other_devices_are_refused():
    with pytest.raises(InputError, match="on an NVIDIA GPU"):
        published_noise(SHAPE, device="cpu")
