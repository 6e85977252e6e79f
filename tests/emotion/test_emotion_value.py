import math

import numpy as np
import pytest
import torch
from emotions import make_priors, make_spread
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dicetalk.emotion.mixing import mix
from dicetalk.emotion.options import BankOptions
from dicetalk.emotion.timeline import EmotionTimeline, TimelineKey
from dicetalk.emotion.value import Emotion, TokenMix
from dicetalk.errors import InputError

PRIORS = make_priors()
SPREAD = [emotion.with_deviation(make_spread(number)) for number, emotion in enumerate(PRIORS.values())]
NEUTRAL, HAPPY, SAD = PRIORS["neutral"], PRIORS["happy"], PRIORS["sad"]


def same(a, b):
    return torch.equal(a.mean, b.mean) and torch.equal(a.deviation, b.deviation)


def test_a_value_copies_what_it_is_given():
    numbers = torch.ones(256)
    emotion = Emotion(numbers)
    numbers += 1
    assert emotion.mean.dtype == torch.float32 and torch.equal(emotion.mean, torch.ones(256))
    assert torch.equal(emotion.deviation, torch.zeros(256))
    with pytest.raises(AttributeError):
        emotion.name = "other"


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"mean": np.zeros(255)}, "256"),
        ({"mean": np.zeros((1, 256))}, "shape"),
        ({"mean": [math.nan] + [0.0] * 255}, "finite"),
        ({"mean": np.full(256, 1e300)}, "finite"),
        ({"mean": "happy"}, "256 numbers"),
        ({"mean": np.zeros(256, dtype=np.complex64)}, "real"),
        ({"mean": np.zeros(256), "deviation": -np.ones(256)}, "negative"),
        ({"mean": np.zeros(256), "name": "two\nlines"}, "name"),
        ({"mean": np.zeros(256), "bank": "full"}, "BankOptions"),
    ],
)
def test_a_value_is_checked(arguments, words):
    with pytest.raises(InputError, match=words):
        Emotion(**arguments)


def test_equality_is_by_what_a_value_does():
    assert HAPPY == HAPPY.renamed("joy") and hash(HAPPY) == hash(HAPPY.renamed("joy", "elsewhere"))
    for other in (SAD, HAPPY.with_deviation(torch.ones(256)), HAPPY.with_bank(BankOptions(temperature=2.0))):
        assert HAPPY != other and HAPPY.digest() != other.digest()
    assert HAPPY.digest() == Emotion(HAPPY.mean).digest() and len(HAPPY.digest()) == 64
    assert HAPPY != EmotionTimeline((TimelineKey(0, HAPPY),))


def test_bank_options_are_changed_one_by_one_or_all():
    emotion = HAPPY.with_bank(BankOptions("top-k", 4))
    assert emotion.with_bank(temperature=0.5).bank == BankOptions("top-k", 4, 0.5)
    assert emotion.with_bank(BankOptions(temperature=0.5)).bank == BankOptions("full", temperature=0.5)
    with pytest.raises(InputError, match="mode"):
        emotion.with_bank(mode="some")


def test_digest_stays_between_runs():
    assert Emotion(torch.zeros(256)).digest() == "016a20ac37b9deb1f1fb78cabf737071405fe4062e1737bfba90903619960fb7"


def test_intensity_acts_on_the_residual_from_neutral():
    happy = HAPPY.with_deviation(make_spread(1))
    neutral = NEUTRAL.with_deviation(make_spread(2))
    assert happy.with_intensity(neutral, 1) is happy
    assert same(happy.with_intensity(neutral, 0), neutral)
    for intensity in (0.3, 1.5, 2):
        scaled = happy.with_intensity(neutral, intensity)
        expected = neutral.mean + intensity * (happy.mean - neutral.mean)
        assert torch.allclose(scaled.mean, expected, atol=1e-5)
        assert (scaled.deviation >= 0).all() and scaled.bank == happy.bank


@pytest.mark.parametrize("intensity", [-0.1, 2.01, math.nan, math.inf, "1", None, True, 10**400])
def test_intensity_is_checked(intensity):
    with pytest.raises(InputError, match="intensity"):
        HAPPY.with_intensity(NEUTRAL, intensity)


def test_variation_draws_from_the_gaussian():
    happy = HAPPY.with_deviation(torch.full((256,), 0.5))
    assert happy.varied(3, 0) is happy
    assert happy.varied(3) == happy.varied(3) != happy.varied(4)
    draws = torch.stack([happy.varied(seed).mean - happy.mean for seed in range(100)])
    assert abs(draws.std() - 0.5) < 0.02 and abs(draws.mean()) < 0.02
    half = happy.varied(3, 0.5).mean - happy.mean
    assert torch.allclose(half * 2, happy.varied(3).mean - happy.mean, atol=1e-5)
    assert happy.varied(2**64 - 1) != happy.varied(2**63)
    assert same(HAPPY.varied(3), HAPPY)  # a released prior has no spread


@pytest.mark.parametrize(
    "seed, strength, words", [(-1, 1, "seed"), (2**64, 1, "seed"), (0.5, 1, "seed"), (0, 2.5, "strength")]
)
def test_variation_is_checked(seed, strength, words):
    with pytest.raises(InputError, match=words):
        HAPPY.varied(seed, strength)


def test_barycentre_and_moments_by_hand():
    a, b = SPREAD[0], SPREAD[1]
    wasserstein = mix([a, b], [3, 1])
    assert torch.allclose(wasserstein.mean, 0.75 * a.mean + 0.25 * b.mean, atol=1e-6)
    assert torch.allclose(wasserstein.deviation, 0.75 * a.deviation + 0.25 * b.deviation, atol=1e-6)

    moments = mix([a, b], [3, 1], "moments")
    choose = torch.rand(200_000, 1, generator=torch.Generator().manual_seed(0)) < 0.75
    noise = torch.randn(200_000, 8, generator=torch.Generator().manual_seed(1))
    draws = torch.where(choose, a.mean[:8] + a.deviation[:8] * noise, b.mean[:8] + b.deviation[:8] * noise)
    assert torch.equal(moments.mean, wasserstein.mean)
    assert torch.allclose(moments.deviation[:8], draws.std(0), rtol=0.02)


def test_moments_keep_the_spread_between_priors_without_one():
    moments = mix(PRIORS.values(), method="moments")
    means = torch.stack([emotion.mean for emotion in PRIORS.values()])
    assert torch.allclose(moments.deviation, means.std(0, correction=0), atol=1e-5)
    assert moments.varied(1) != moments
    assert not mix(PRIORS.values()).deviation.any()


mixes = st.lists(st.tuples(st.integers(0, 7), st.floats(0, 1e6)), min_size=1, max_size=6).filter(
    lambda pairs: any(weight > 0 for _, weight in pairs)
)
methods = st.sampled_from(["barycentre", "moments", "tokens"])


@settings(max_examples=60, deadline=None)
@given(mixes, methods, st.randoms(use_true_random=False))
def test_order_does_not_matter(pairs, method, random):
    shuffled = random.sample(pairs, len(pairs))
    first, second = (
        mix([SPREAD[number] for number, _ in order], [weight for _, weight in order], method)
        for order in (pairs, shuffled)
    )
    assert first == second


@settings(max_examples=60, deadline=None)
@given(mixes, st.floats(1e-3, 1e3))
def test_a_mix_lies_between_its_parts_and_weights_are_relative(pairs, scale):
    emotions, weights = [SPREAD[number] for number, _ in pairs], [weight for _, weight in pairs]
    assume(all(weight == 0 or weight > 1e-300 for weight in weights))  # so that scaling them does not underflow
    mixed = mix(emotions, weights)
    used = [emotion for emotion, weight in zip(emotions, weights, strict=True) if weight > 0]
    for field in ("mean", "deviation"):
        values = torch.stack([getattr(emotion, field) for emotion in used])
        assert (getattr(mixed, field) >= values.amin(0)).all() and (getattr(mixed, field) <= values.amax(0)).all()
    rescaled = mix(emotions, [weight * scale for weight in weights])
    assert torch.allclose(mixed.mean, rescaled.mean, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 7), st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=5), methods)
def test_a_mix_of_one_is_that_one(number, weights, method):
    emotion = SPREAD[number]
    assert mix([emotion] * len(weights), weights, method) is emotion
    other = SPREAD[(number + 1) % 8]
    assert mix([emotion, other], [weights[0], 0], method) is emotion


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 6), st.floats(0.01, 100), methods)
def test_a_part_counts_once_with_the_sum_of_its_weights(number, weight, method):
    a, b = SPREAD[number], SPREAD[number + 1]
    assert mix([a, b, a], [weight, 2 * weight, weight], method) == mix([a, b], [1, 1], method)


def test_token_mixes_flatten():
    inner = mix([HAPPY, SAD], [1, 1], "tokens")
    assert isinstance(inner, TokenMix) and math.isclose(sum(weight for weight, _ in inner.parts), 1)
    outer = mix([inner, SAD, NEUTRAL], [2, 1, 1], "tokens")
    assert {part.name: weight for weight, part in outer.parts} == {"happy": 0.25, "sad": 0.5, "neutral": 0.25}
    assert mix([inner, inner], method="tokens") is inner
    assert torch.allclose(inner.mean, (HAPPY.mean + SAD.mean) / 2, atol=1e-6)
    assert inner.with_intensity(NEUTRAL, 1) == inner
    assert [part.mean.tolist() for _, part in inner.with_intensity(NEUTRAL, 0).parts] == [NEUTRAL.mean.tolist()] * 2
    assert all(part.bank.mode == "nearest" for _, part in inner.with_bank(BankOptions("nearest")).parts)


@pytest.mark.parametrize(
    "emotions, weights, method, words",
    [
        ([], None, "barycentre", "at least one"),
        ([HAPPY, SAD], [0, 0], "barycentre", "not all be 0"),
        ([HAPPY, SAD], [1, -1], "barycentre", "weight"),
        ([HAPPY, SAD], [1, math.nan], "barycentre", "weight"),
        ([HAPPY, SAD], [1, math.inf], "barycentre", "weight"),
        ([HAPPY, SAD], [1], "barycentre", "as many weights"),
        ([HAPPY, SAD], None, "average", "method"),
        ([HAPPY, EmotionTimeline((TimelineKey(0, SAD),))], None, "barycentre", "timeline"),
        ([HAPPY, SAD.with_bank(BankOptions("nearest"))], None, "moments", "bank"),
        ([HAPPY, mix([HAPPY, SAD], method="tokens")], None, "barycentre", "tokens"),
    ],
)
def test_mixing_is_checked(emotions, weights, method, words):
    with pytest.raises(InputError, match=words):
        mix(emotions, weights, method)
