import json
import zlib

import numpy as np
import pytest
import torch
from project import GOLDEN
from safetensors.torch import load_file

from dicetalk.emotion.options import BankOptions
from dicetalk.errors import InputError
from dicetalk.model.emotion import EmotionModel

SMALL = {
    "emotion_dim": 16,
    "tokens": 4,
    "width": 32,
    "hidden": 24,
    "codes": 12,
    "code_dim": 20,
    "classifier_dims": (8, 6, 5, 3),
}


def fill(model):
    """The golden cases' weights: a random state seeded with the checksum of each name."""
    for name, weight in model.state_dict().items():
        values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(weight.shape))
        if values.ndim == 1:
            values = 1 + 0.1 * values if name.endswith("weight") else 0.02 * values
        else:
            values /= np.sqrt(np.prod(values.shape[1:]))
        weight.copy_(torch.from_numpy(values.astype(np.float32)))
    return model.eval().requires_grad_(False)


def read_case(name):
    case = json.loads((GOLDEN / name / "case.json").read_text())
    return case, load_file(GOLDEN / name / "tensors.safetensors")


@pytest.fixture(scope="module")
def released():
    return fill(EmotionModel())


@pytest.fixture(scope="module")
def small():
    return fill(EmotionModel(**SMALL))


@pytest.fixture
def means():
    return torch.randn(20, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["emotion_full_bank", "emotion_retrieval"])
def test_tokens_are_the_published_ones(released, name):
    case, tensors = read_case(name)
    bank = BankOptions(mode="nearest" if case["config"]["retrieval"] else "full")
    mean = tensors["in.mu"]
    shape = tensors["out.tokens"].shape
    assert (released.tokens(mean, bank).view(shape) - tensors["out.tokens"]).abs().max() < case["tolerance"]
    unconditional = released.unconditional(bank).view(shape)
    assert (unconditional - tensors["out.uncond_tokens"]).abs().max() < case["tolerance"]
    assert released.nearest_code(mean).tolist() == tensors["out.code"].tolist()


def test_classifier_scores_are_the_published_ones(released):
    case, tensors = read_case("emotion_classifier")
    assert (released.classify(tensors["in.features"]) - tensors["out.logits"]).abs().max() < case["tolerance"]


def test_config_comes_from_the_shapes(released, small):
    assert EmotionModel.config_from_state_dict(small.state_dict()) == SMALL
    with torch.device("meta"):
        default = EmotionModel().state_dict()
        rebuilt = EmotionModel(**EmotionModel.config_from_state_dict(released.state_dict())).state_dict()
    assert {k: v.shape for k, v in default.items()} == {k: v.shape for k, v in rebuilt.items()}


def test_top_k_meets_the_published_modes_at_its_ends(small, means):
    assert torch.equal(small.tokens(means, BankOptions("top-k", 1)), small.tokens(means, BankOptions("nearest")))
    for k in (12, 13):
        assert torch.equal(small.tokens(means, BankOptions("top-k", k)), small.tokens(means))
    between = small.tokens(means, BankOptions("top-k", 5))
    assert not torch.allclose(between, small.tokens(means), atol=1e-3)


@pytest.mark.parametrize("bank", [BankOptions(), BankOptions("nearest"), BankOptions("top-k", 5, 0.3)])
def test_a_batch_equals_its_elements(small, means, bank):
    together = small.tokens(means, bank)
    for mean, tokens in zip(means, together, strict=True):
        assert torch.allclose(small.tokens(mean[None], bank)[0], tokens, atol=1e-5)


def test_the_bank_is_expanded_once_for_a_batch(small, means):
    calls = []
    handle = small.kv_tokens_linear.register_forward_hook(lambda *args: calls.append(args[1][0].shape))
    small.tokens(means)
    handle.remove()
    assert calls == [(12, 20)]


def test_attention_by_hand(small, means):
    """Temperature divides the logits, and top-k attends to the nearest codes alone."""
    bank = BankOptions("top-k", 3, temperature=2.5)
    mean = means[:1]
    placed = small.codebook.fc(mean)
    nearest = torch.cdist(placed, small.codebook.codebook.weight)[0].argsort()[:3]
    expanded = small.kv_tokens_linear(small.codebook.codebook.weight[nearest]).reshape(12, 32)
    q = small.attention.fc_q(small.emo_linear(mean)[0]).view(4, 8, 4)
    k = small.attention.fc_k(expanded).view(12, 8, 4)
    v = small.attention.fc_v(expanded).view(12, 8, 4)
    weights = (torch.einsum("qhd,khd->hqk", q, k) / 2 / 2.5).softmax(-1)
    tokens = torch.einsum("hqk,khd->qhd", weights, v).reshape(4, 32)
    assert torch.allclose(small.tokens(mean, bank)[0], tokens, atol=1e-5)

    usage = torch.zeros(8, 12)
    usage[:, nearest] = weights.mean(1).view(8, 3, 4).sum(-1)
    assert torch.allclose(small.usage(mean, bank)[0], usage, atol=1e-6)


def test_usage_sums_to_one_and_follows_the_options(small, means):
    usage = small.usage(means)
    assert usage.shape == (20, 8, 12) and torch.allclose(usage.sum(-1), torch.ones(20, 8), atol=1e-5)
    nearest = small.usage(means, BankOptions("nearest"))
    assert torch.equal(nearest.argmax(-1), small.nearest_code(means)[:, None].expand(20, 8))
    assert torch.allclose(nearest.amax(-1), torch.ones(20, 8))
    sharp, flat = small.usage(means, BankOptions(temperature=0.05)), small.usage(means, BankOptions(temperature=20))
    assert sharp.amax(-1).mean() > usage.amax(-1).mean() > flat.amax(-1).mean()


def test_progress_is_told_and_can_stop_the_work(small, means):
    told = []
    small(means, on_chunk=lambda done, total: told.append((done, total)))
    assert told == [(16, 20), (20, 20)]

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small(means, on_chunk=stop)


def test_layers_that_cast_their_own_weights_serve(monkeypatch, means):
    """Stand-ins for torch's layers whose weights rest in another type than the computation's."""

    class Linear(torch.nn.Linear):
        def forward(self, x):
            return torch.nn.functional.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))

    class LayerNorm(torch.nn.LayerNorm):
        def forward(self, x):
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            return torch.nn.functional.layer_norm(x, self.normalized_shape, weight, bias)

    expected = fill(EmotionModel(**SMALL))
    monkeypatch.setattr(torch.nn, "Linear", Linear)
    monkeypatch.setattr(torch.nn, "LayerNorm", LayerNorm)
    model = EmotionModel(**SMALL)
    model.load_state_dict(expected.state_dict())
    model.requires_grad_(False).to(torch.bfloat16)
    for bank in (BankOptions(), BankOptions("top-k", 4)):
        tokens = model.tokens(means, bank)
        assert tokens.dtype == torch.float32
        assert (tokens - expected.tokens(means, bank)).abs().mean() < 0.02
    assert model.unconditional(dtype=torch.float32).dtype == torch.float32
    assert model.usage(means).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(means, dtype):
    exact = fill(EmotionModel(**SMALL))
    half = fill(EmotionModel(**SMALL)).to(dtype)
    tokens = half.tokens(means.to(dtype))
    assert tokens.dtype == dtype and half.unconditional().dtype == dtype
    assert (tokens.float() - exact.tokens(means)).abs().mean() < 0.02


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"mode": "some"}, "full, nearest, top-k"),
        ({"mode": "top-k", "top_k": 0}, "top-k"),
        ({"mode": "top-k", "top_k": 2.5}, "top-k"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "1"}, "temperature"),
    ],
)
def test_bank_options_are_checked(arguments, words):
    with pytest.raises(InputError, match=words):
        BankOptions(**arguments)


def test_bank_options_ignore_an_idle_top_k():
    assert BankOptions("full", top_k=3) == BankOptions("full", top_k=5)
    assert BankOptions("top-k", top_k=3) != BankOptions("top-k", top_k=5)


def test_training_tokens_are_those_of_sampling_but_for_what_is_masked(small, means):
    full, loss = small.training_tokens(means, False)
    assert torch.allclose(full, small(means), atol=1e-6) and loss == 0
    nearest, loss = small.training_tokens(means, True)
    assert torch.allclose(nearest, small(means, BankOptions(mode="nearest")), atol=1e-5) and loss > 0
    masked = torch.arange(len(means)) % 2 == 0
    dropped, same = small.training_tokens(means, True, masked)
    assert torch.equal(dropped[~masked], nearest[~masked]) and same == loss
    assert torch.allclose(dropped[masked], dropped[:1].expand_as(dropped[masked]), atol=1e-6)
    dropped, _ = small.training_tokens(means, False, masked)
    assert torch.allclose(dropped[masked], small.unconditional().expand_as(dropped[masked]), atol=1e-6)
