import math

import pytest
import torch
from emotions import make_priors, make_spread
from hypothesis import given, settings
from hypothesis import strategies as st
from live_bytes import LiveBytes

from dicetalk.emotion.files import load_emotion, save_emotion
from dicetalk.emotion.mixing import mix
from dicetalk.emotion.options import BankOptions
from dicetalk.emotion.timeline import EmotionTimeline, TimelineKey, late_keys
from dicetalk.emotion.value import Emotion, TokenMix
from dicetalk.errors import InputError
from dicetalk.model.emotion import EmotionModel
from dicetalk.model.emotion_tokens import distinct_tokens, emotion_tokens, frame_emotions, value_usage

PRIORS = make_priors()
HAPPY, SAD, FEAR = (PRIORS[name].with_deviation(make_spread(n)) for n, name in enumerate(("happy", "sad", "fear")))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return EmotionModel(tokens=4, width=32, hidden=24, codes=12, code_dim=20).eval().requires_grad_(False)


def timeline(*keys):
    return EmotionTimeline(tuple(TimelineKey(*key) for key in keys))


def frame_means(emotion, num_frames, fps=12.5):
    """(num_frames, 256): the mean that each frame shows."""
    values, index = frame_emotions(emotion, num_frames, fps)
    return torch.stack([values[number].mean for number in index])


def test_held_before_the_first_and_after_the_last():
    line = timeline((1, HAPPY), (2, SAD))
    assert line.at(0) is HAPPY and line.at(1) is HAPPY and line.at(2) is SAD and line.at(1e9) is SAD


@pytest.mark.parametrize(
    "easing, shares", [("linear", (0.25, 0.5, 0.75)), ("smooth", (0.15625, 0.5, 0.84375)), ("step", (0, 0, 0))]
)
def test_easing_is_the_way_to_a_key(easing, shares):
    line = timeline((1, HAPPY, "step"), (2, SAD, easing), (3, FEAR))
    for seconds, share in zip((1.25, 1.5, 1.75), shares, strict=True):
        shown = line.at(seconds)
        assert torch.allclose(shown.mean, HAPPY.mean + share * (SAD.mean - HAPPY.mean), atol=1e-5)
        assert torch.allclose(shown.deviation, HAPPY.deviation + share * (SAD.deviation - HAPPY.deviation), atol=1e-5)
    assert line.at(2) is SAD
    assert torch.allclose(line.at(2.5).mean, (SAD.mean + FEAR.mean) / 2, atol=1e-5)


def test_frames_are_evaluated_at_the_time_they_are_shown():
    line = timeline((0, HAPPY), (0.16, SAD, "step"))
    assert [frame_means(line, 4)[n].equal(e.mean) for n, e in enumerate((HAPPY, HAPPY, SAD, SAD))] == [True] * 4
    at_25 = frame_means(timeline((0, HAPPY), (1, SAD)), 25, fps=25)
    at_12 = frame_means(timeline((0, HAPPY), (1, SAD)), 13)
    assert at_25[::2].equal(at_12)


def test_keys_are_ordered_and_the_first_easing_counts_for_nothing():
    assert timeline((2, SAD, "smooth"), (0, HAPPY, "step")) == timeline((0, HAPPY), (2, SAD, "smooth"))
    assert timeline((0, HAPPY), (2, SAD, "smooth")) != timeline((0, HAPPY), (2, SAD))


@pytest.mark.parametrize(
    "keys, words",
    [
        ((), "at least one"),
        (((1, HAPPY), (1, SAD)), "two emotions at 1 s"),
        (((-1, HAPPY),), "time"),
        (((math.nan, HAPPY),), "time"),
        (((math.inf, HAPPY),), "time"),
        (((172_801, HAPPY),), "time"),
        (((0, HAPPY, "bounce"),), "easing"),
        (((0, EmotionTimeline((TimelineKey(0, HAPPY),))),), "another timeline"),
    ],
)
def test_a_timeline_is_checked(keys, words):
    with pytest.raises(InputError, match=words):
        timeline(*keys)


@pytest.mark.parametrize(
    "emotion", [HAPPY, mix([HAPPY, SAD], method="tokens"), HAPPY.with_bank(BankOptions("nearest"))]
)
def test_a_constant_timeline_is_the_constant_emotion_bit_for_bit(model, emotion):
    line = timeline((0.3, emotion), (1, emotion, "smooth"), (2, emotion))
    tokens = emotion_tokens(model, line, 40)
    assert tokens.shape == (1, 4, 32) and torch.equal(tokens, emotion_tokens(model, emotion, 40))
    assert len(frame_emotions(line, 40)[0]) == 1 and torch.equal(frame_means(line, 40)[39], emotion.mean)


def test_a_plain_emotion_gives_the_models_tokens(model):
    bank = BankOptions("top-k", 3, 0.5)
    assert torch.equal(emotion_tokens(model, HAPPY.with_bank(bank), 7), model.tokens(HAPPY.mean[None], bank))


def test_a_mix_by_tokens_of_one_part_is_that_part(model, tmp_path):
    save_emotion(TokenMix(((1.0, HAPPY),)), tmp_path / "one.safetensors")  # which no mix makes, but a file may hold
    one = load_emotion(tmp_path / "one.safetensors")
    assert isinstance(one, TokenMix)
    assert torch.equal(emotion_tokens(model, one, 7), emotion_tokens(model, HAPPY, 7))
    assert torch.equal(value_usage(model, [SAD, one]), value_usage(model, [SAD, HAPPY]))
    line = timeline((0, SAD), (1, one))
    assert torch.allclose(emotion_tokens(model, line, 20)[-1], emotion_tokens(model, HAPPY, 1)[0], atol=1e-5)


def test_tokens_follow_the_frames(model):
    line = timeline((0, HAPPY), (0.4, SAD), (1, SAD), (1.4, HAPPY))
    tokens = emotion_tokens(model, line, 30)
    means = frame_means(line, 30)
    assert tokens.shape == (30, 4, 32) and means.shape == (30, 256)
    for frame in range(30):
        assert torch.allclose(tokens[frame], model.tokens(means[frame : frame + 1])[0], atol=1e-5)
    assert not torch.allclose(tokens[0], tokens[8], atol=1e-2)


def test_equal_frames_are_computed_once(model):
    seen = []
    handle = model.emo_linear.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    line = timeline((1, HAPPY), (1.4, SAD), (500, SAD), (500.4, HAPPY))
    tokens, index = distinct_tokens(model, line, 7500)
    handle.remove()
    assert sum(seen) == len(tokens) <= 11 and len(index) == 7500
    assert torch.equal(tokens[index[0]], tokens[index[7499]])


def test_token_mixes_are_mixed_after_the_bank(model):
    mixed = mix([HAPPY, SAD], [1, 3], "tokens")
    expected = 0.25 * model.tokens(HAPPY.mean[None]) + 0.75 * model.tokens(SAD.mean[None])
    assert torch.allclose(emotion_tokens(model, mixed, 5), expected, atol=1e-5)


def test_keys_that_cannot_meet_as_gaussians_meet_in_their_tokens(model):
    nearest = SAD.with_bank(BankOptions("nearest"))
    line = timeline((0, HAPPY), (0.8, nearest), (1.6, mix([HAPPY, FEAR], method="tokens")))
    assert isinstance(line.at(0.2), TokenMix) and isinstance(line.at(1.2), TokenMix)
    tokens = emotion_tokens(model, line, 25)
    ends = emotion_tokens(model, HAPPY, 1)[0], emotion_tokens(model, nearest, 1)[0]
    assert torch.allclose(tokens[0], ends[0], atol=1e-5) and torch.allclose(tokens[10], ends[1], atol=1e-5)
    assert torch.allclose(tokens[5], (ends[0] + ends[1]) / 2, atol=1e-5)


def test_type_and_progress(model):
    told = []
    line = timeline((0, HAPPY), (4, SAD.with_bank(BankOptions("nearest"))), (8, SAD), (12, HAPPY))
    tokens = emotion_tokens(
        model.to(torch.bfloat16),
        line,
        150,
        dtype=torch.bfloat16,
        on_chunk=lambda done, total: told.append((done, total)),
    )
    model.to(torch.float32)
    assert tokens.dtype == torch.bfloat16 and tokens.shape == (150, 4, 32)
    assert told == sorted(told) and told[-1][0] == told[-1][1]
    with pytest.raises(InputError, match="frames"):
        emotion_tokens(model, HAPPY, 0)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 5), st.integers(0, 2), st.sampled_from(["linear", "smooth", "step"])),
        min_size=1,
        max_size=5,
        unique_by=lambda key: key[0],
    ),
    st.floats(0, 6),
)
def test_a_timeline_stays_between_its_emotions(keys, seconds):
    emotions = (HAPPY, SAD, FEAR)
    shown = timeline(*((time, emotions[number], easing) for time, number, easing in keys)).at(seconds)
    assert isinstance(shown, Emotion)
    means = torch.stack([emotions[number].mean for _, number, _ in keys])
    assert (shown.mean >= means.amin(0) - 1e-6).all() and (shown.mean <= means.amax(0) + 1e-6).all()


def test_the_tokens_of_a_timeline_are_held_once(monkeypatch):
    monkeypatch.setattr("dicetalk.model.emotion_tokens.AT_ONCE", 20)
    model = EmotionModel(tokens=32, width=256, hidden=24, codes=12, code_dim=20).eval().requires_grad_(False)
    with LiveBytes() as live:
        tokens = emotion_tokens(model, timeline((0, HAPPY), (100, SAD)), 1000)
    assert len(tokens) == 1000 and live.peak < 1.5 * tokens.nbytes


def test_emotions_after_the_end_are_told():
    moods = timeline((0, HAPPY), (4, SAD), (9, FEAR))
    assert late_keys(moods, 10) == late_keys(moods, 9) == late_keys(HAPPY, 1) == ()
    assert late_keys(moods, 3.5) == ("The emotion at 4 s comes after the end of the clip, which lasts 3.50 s.",)
