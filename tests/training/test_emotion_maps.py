"""The maps that see emotions keep their units in a training, and get back those that were lost."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F

from dicetalk.checkpoints.tiny import emotion_means
from dicetalk.emotion.options import NAMES
from dicetalk.model.emotion import EmotionModel
from dicetalk.training.emotion_maps import centred, restart_silent_units
from dicetalk.training.parts import start_from_emotions

PRIORS = {name: torch.from_numpy(mean) for name, mean in emotion_means().items()}
MEANS = torch.stack([PRIORS[name] for name in NAMES])


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = EmotionModel(tokens=4, width=32, hidden=64, codes=16, code_dim=32, classifier_dims=(8, 8, 8, 22))
    with torch.no_grad():
        start_from_emotions(model, PRIORS)
    return model


def silent(model):
    """Units of the first layer that are off for all emotions."""
    return int((F.relu(model.emo_linear.proj1(MEANS)) == 0).all(0).sum())


def learned(model, how, steps=150):
    """Ask for other tokens of every emotion; a new task every ten steps, as a training's batches are."""
    random = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.emo_linear.parameters(), lr=3e-3)
    with how:
        for step in range(steps):
            if step % 10 == 0:
                target = torch.randn(1, 4, 32, generator=random) + 0.3 * torch.randn(8, 4, 32, generator=random)
            optimizer.zero_grad()
            F.mse_loss(model.emo_linear(MEANS), target).backward()
            optimizer.step()
    return model


def test_counting_from_the_centre_changes_no_token(model):
    before, bias = model.tokens(MEANS), model.emo_linear.proj1.bias.clone()
    with centred(model, PRIORS):
        assert not torch.allclose(model.emo_linear.proj1.bias, bias)
        torch.testing.assert_close(model.tokens(MEANS), before, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(model.tokens(MEANS), before, atol=1e-3, rtol=1e-3)


def test_a_failure_inside_leaves_the_published_form(model):
    before = model.tokens(MEANS)
    with pytest.raises(KeyboardInterrupt), centred(model, PRIORS):
        raise KeyboardInterrupt
    torch.testing.assert_close(model.tokens(MEANS), before, atol=1e-3, rtol=1e-3)


def test_weights_that_do_not_learn_stay_bit_for_bit(model):
    model.requires_grad_(False)
    before = model.emo_linear.proj1.bias.clone()
    with centred(model, PRIORS):
        pass
    assert torch.equal(model.emo_linear.proj1.bias, before)


def test_units_are_lost_in_a_training_unless_emotions_are_counted_from_their_centre(model):
    state = {name: each.clone() for name, each in model.state_dict().items()}
    kept = silent(learned(model, centred(model, PRIORS)))
    model.load_state_dict(state)
    lost = silent(learned(model, nullcontext()))
    assert kept <= 4 and lost >= 16, (kept, lost)  # of 64


def test_silent_units_are_started_again_and_no_token_changes(model):
    with torch.no_grad():
        model.emo_linear.proj1.bias[:40] = -100
        model.kv_tokens_linear.proj2.bias[:10] = -100
    before = model.tokens(MEANS)
    count = restart_silent_units(model, PRIORS)
    assert count >= 50
    torch.testing.assert_close(model.tokens(MEANS), before, atol=1e-5, rtol=1e-5)
    assert silent(model) <= 2 and restart_silent_units(model, PRIORS) < 10
    answers = model.emo_linear.proj1(MEANS)[:, :40]
    assert torch.cdist(answers, answers)[~torch.eye(8, dtype=bool)].min() > 3  # close emotions too
