"""The two maps that see emotions: kept in reach of their gradients, and what no emotion reaches is started again."""

from contextlib import contextmanager

import torch
import torch.nn.functional as F


@contextmanager
def centred(emotion_model, priors):
    """While it is open, both maps count emotions from the priors' centre; afterwards from zero, as published.

    The function stays what it is, and only the steps of an optimizer change. Emotions are far from zero (14) and near
    each other (2 to 6), so that nearly all of a unit's gradient says to turn it up or down for all emotions at once.
    AdamW, which makes steps of one size, follows it until the unit is off for all of them, and it has no gradient from
    then on. With centred inputs that part of the gradient is the bias's alone (LeCun et al. 1998, section 4.3).

    Args:
        emotion_model: `EmotionModel`; the biases that learn change in place, and change back.
        priors: name → (emotion_dim,) mean.
    """
    maps = [each for each in (emotion_model.emo_linear.proj1, emotion_model.codebook.fc) if each.bias.requires_grad]
    centre = torch.stack([priors[name] for name in sorted(priors)]).float().mean(0)

    def move(factor):
        with torch.no_grad():
            for linear in maps:
                linear.bias += factor * (linear.weight @ centre.to(linear.weight))

    hooks = [linear.register_forward_pre_hook(lambda _, inputs: (inputs[0] - centre.to(inputs[0]),)) for linear in maps]
    move(1)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        move(-1)


@torch.no_grad()
def restart_silent_units(emotion_model, priors, strengths=(0.6, 1.0, 1.4), seed=0) -> int:
    """Units of the two expanders that are off for all emotions, or all codes, get new weights and learn again.

    A unit's new inputs answer to each emotion at random, with a spread of 1, and what follows does not hear it yet, so
    that the tokens stay what they are (Sokar et al. 2023, who call it recycling).

    Args:
        emotion_model: `EmotionModel`; changed in place.
        priors: name → (emotion_dim,) mean, "neutral" among them.
        strengths: of the emotions that are tried, 1 being the prior.
        seed: of the answers.

    Returns:
        How many there were.
    """
    means = torch.stack([priors[name] for name in sorted(priors)]).float()
    emotions = torch.cat([priors["neutral"] + strength * (means - priors["neutral"]) for strength in strengths])
    random, count = torch.Generator().manual_seed(seed), 0
    for expander, seen in (
        (emotion_model.emo_linear, emotions),
        (emotion_model.kv_tokens_linear, emotion_model.codebook.codebook.weight.float()),
    ):
        for layer, following in ((expander.proj1, expander.proj2), (expander.proj2, expander.proj3)):
            silent, centre = (F.relu(layer(seen)) == 0).all(0), seen.mean(0)
            if found := int(silent.sum()):
                answers = torch.randn(len(seen), found, generator=random)
                weight = torch.linalg.pinv(seen - centre, rtol=1e-2) @ answers
                weight /= ((seen - centre) @ weight).std(0).clamp(min=1e-6)
                layer.weight[silent], layer.bias[silent] = weight.T, -(centre @ weight)
                following.weight[:, silent] = 0
            seen, count = F.relu(layer(seen)), count + found
    return count
