"""A synthetic set of clips with known factors, to prove the training on where there are no real recordings.

Every clip has an identity and an emotion, and both shape its face and its voice strongly:

    expression = intensity × envelope(t) × (emotion's code × identity's gain + identity's own way of showing it)
    signal(t)  = expression + identity's resting look + the take's setting + speech(t) + noise

The identity's resting look is partly in the directions of the expressions, so that one person at rest looks like
another one's emotion; speech moves what expressions move; and each map from factors to features ends in a
nonlinearity. Identities of the test set occur nowhere else.
"""

from dataclasses import dataclass

import numpy as np
import torch

from .model import AUDIO_FEATURES, VISUAL_FEATURES

_FACTORS = 12
_SETTINGS = {"visual": 0.7, "audio": 2.0}  # strength of light and camera, of room and microphone


@dataclass(frozen=True)
class SyntheticOptions:
    """How many clips, and how hard.

    Attributes:
        train_identities, test_identities: people; no one is in both.
        takes: clips per person and emotion.
        tokens: length of a clip, at 12.5 a second.
        identity: strength of a person's resting look, relative to the expressions.
        manner: how much a person's way of showing an emotion is their own.
        noise: of a take's setting and of every frame.
        missing: share of the clips that lack the face, and as large a share that lack the voice.
        seed: of everything.
    """

    train_identities: int = 48
    test_identities: int = 16
    takes: int = 8
    tokens: int = 8
    identity: float = 0.8
    manner: float = 0.3
    noise: float = 1.0
    missing: float = 0.1
    seed: int = 0


def synthetic_clips(options, emotions):
    """Draw the set.

    Args:
        options: SyntheticOptions.
        emotions: names of the emotions, "neutral" among them, whose expression is none.

    Returns:
        (train, test): each a dictionary of tensors over clips: visual (clips, tokens, 52), visual_mask (clips, tokens),
        audio (clips, tokens, 384), audio_mask (clips, tokens), emotion (clips,), actor (clips,).
    """
    random = np.random.default_rng(options.seed)
    codes = random.standard_normal((len(emotions), _FACTORS))
    codes[list(emotions).index("neutral")] = 0
    widths = {"visual": VISUAL_FEATURES, "audio": AUDIO_FEATURES}
    world = {name: _map(random, features, _SETTINGS[name]) for name, features in widths.items()}
    total = options.train_identities + options.test_identities
    people = random.standard_normal((total, _FACTORS))
    clips = [
        (person, emotion) for person in range(total) for emotion in range(len(emotions)) for _ in range(options.takes)
    ]
    person, emotion = np.array(clips).T
    missing = random.random(len(clips))
    sets = {"emotion": torch.from_numpy(emotion), "actor": torch.from_numpy(person)}
    for number, (name, maps) in enumerate(world.items()):
        there = (missing < number * options.missing) | (missing >= (number + 1) * options.missing)
        signal = _signals(random, options, codes[emotion], people[person], maps)
        mask = np.repeat(there[:, None], options.tokens, axis=1)
        if name == "visual":
            mask &= random.random(mask.shape) > 0.05  # a face that is turned away now and then
        sets[name] = torch.from_numpy(np.where(mask[..., None], signal, 0).astype(np.float32))
        sets[f"{name}_mask"] = torch.from_numpy(mask)
    train = torch.from_numpy(person < options.train_identities)
    return tuple({name: values[chosen] for name, values in sets.items()} for chosen in (train, ~train))


def _map(random, features, setting):
    """How factors become features in one modality."""

    def matrix(rows, columns=features):
        return random.standard_normal((rows, columns)) / np.sqrt(rows)

    expression = matrix(_FACTORS)
    overlap = 0.5 * matrix(_FACTORS, _FACTORS) @ expression  # identity in the directions of the expressions
    return {
        "expression": expression,
        "identity": matrix(_FACTORS) + overlap,
        "gain": matrix(_FACTORS, _FACTORS),
        "manner": random.standard_normal((_FACTORS, _FACTORS, _FACTORS)) / _FACTORS,
        "setting": setting * matrix(8),
        "speech": matrix(8) + 0.5 * matrix(8, _FACTORS) @ expression,
        "scale": random.lognormal(0, 0.5, features),
        "offset": random.standard_normal(features),
    }


def _signals(random, options, codes, people, maps):
    clips, tokens = len(codes), options.tokens
    intensity = random.uniform(0.7, 1.3, (clips, 1, 1))
    envelope = _smooth(random, clips, tokens, 1, 0.9) * 0.3 + 1
    gain = 1 + 0.3 * np.tanh(people @ maps["gain"])
    manner = options.manner * np.einsum("cp,ce,pef->cf", people, codes, maps["manner"])
    expression = (codes * gain + manner) @ maps["expression"]
    signal = intensity * envelope * expression[:, None]
    signal = signal + options.identity * (people @ maps["identity"])[:, None]
    setting = random.standard_normal((clips, 8)) @ maps["setting"]
    signal = signal + options.noise * setting[:, None]
    signal = signal + _smooth(random, clips, tokens, 8, 0.7) @ maps["speech"]
    signal = signal + options.noise * random.standard_normal(signal.shape)
    return maps["offset"] + maps["scale"] * np.tanh(signal / 3) * 3


def _smooth(random, clips, tokens, factors, memory):
    """(clips, tokens, factors): a first-order autoregression of unit variance."""
    values = np.empty((clips, tokens, factors))
    values[:, 0] = random.standard_normal((clips, factors))
    for token in range(1, tokens):
        step = random.standard_normal((clips, factors))
        values[:, token] = memory * values[:, token - 1] + np.sqrt(1 - memory**2) * step
    return values
