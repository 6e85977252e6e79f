"""The order of a classifier's classes, measured: the UNet gets each emotion, and the classifier reads its features.

The sums are plain: of all ways to give each of the seven emotions three classes and neutral one, the likeliest is
taken, and in an emotion the likeliest order of its levels by the strength that the UNet gets.
"""

import itertools
from dataclasses import dataclass, replace
from typing import Callable

import numpy as np
import torch

from ..checkpoints.classes import MEASURED, ClassOrder
from ..emotion.options import CLASSES, LEVELS, NAMES
from ..errors import InputError
from ..model.emotion_tokens import value_tokens
from ..model.settings import LATENT_SCALE
from .conditions import Conditions
from .meter import Meter, middle_features

STRENGTHS = (0.5, 1.0, 1.5)  # of an emotion, for its three levels
SIGMAS = (0.1, 0.3, 0.7)
FRAMES = 8
SURE = 0.5  # the least mean sureness; to know nothing is 1 of 8
CHANCE = 0.002  # how often shuffled scores may fit as well
_SHUFFLES = 1000
_ROWS = {name: [row for row, (of, _) in enumerate(CLASSES) if of == name] for name in NAMES}


@dataclass(frozen=True)
class Measured:
    """What was found.

    Attributes:
        order: the likeliest order of the classes.
        levels: (22,) how sure the level of each class is, 0 to 1.
        chance: how often scores that are shuffled among the emotions fit three classes to an emotion as well, 0 to 1.
    """

    order: ClassOrder
    levels: tuple[float, ...]
    chance: float

    @property
    def sureness(self) -> float:
        """The mean over the classes of how sure their emotion is; to know nothing is 1/8."""
        return float(np.mean(self.order.sureness))


@torch.no_grad()
def measure_scores(
    unet,
    emotion_model,
    meter: Meter,
    conditions: Conditions,
    priors,
    draws=4,
    on_step: Callable[[], None] | None = None,
) -> np.ndarray:
    """What the classifier reads when the UNet gets each emotion, at low noise.

    Args:
        unet, emotion_model: of the checkpoint.
        meter: with its classifier; the order does not matter here.
        conditions: of a clip of FRAMES frames or more; their emotion is replaced.
        priors: name → Emotion, all eight.
        draws: of the noise, 1 or more; the noise levels take turns.
        on_step: called after each of draws × 22 evaluations.

    Returns:
        (draws, 22, 22) float64 log-probabilities, each evaluation's mean over the frames: what was given, as CLASSES,
        by the classifier's outputs.
    """
    strength = dict(zip(LEVELS, STRENGTHS, strict=True))
    told = [
        priors[name] if name == "neutral" else priors[name].with_intensity(priors["neutral"], strength[level])
        for name, level in CLASSES
    ]
    tokens = value_tokens(emotion_model, told)
    frames = list(range(FRAMES))
    clean = (conditions.image_latent.float() * LATENT_SCALE).expand(FRAMES, -1, -1, -1)
    scores = np.zeros((draws, len(CLASSES), len(CLASSES)))
    for draw in range(draws):
        sigma = SIGMAS[draw % len(SIGMAS)]
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(draw)).to(clean)
        for row in range(len(CLASSES)):
            one = replace(conditions, emotion_tokens=tokens[row : row + 1])
            logits = meter.logits(middle_features(unet, one, clean + sigma * noise, sigma, frames))
            scores[draw, row] = logits.double().log_softmax(-1).mean(0).numpy()
            if on_step is not None:
                on_step()
    return scores


def order_from_scores(scores: np.ndarray) -> Measured:
    """The likeliest order of the classes.

    Args:
        scores: (draws, 22, 22) as `measure_scores` gives them.

    Raises:
        InputError: the scores do not distinguish the emotions, as those of an untrained network: the mean sureness is
            below SURE, or shuffled scores fit as well more often than CHANCE.
    """
    # Logarithms to the end: what is never heard has an order too, which shows whether the rest is luck.
    heard = np.logaddexp.reduce(scores, axis=0) - np.log(len(scores))
    evidence = _evidence(heard)
    emotions = _assigned(evidence)
    sureness = _softmax(evidence)[emotions, np.arange(len(CLASSES))]

    classes: list[tuple[str, int]] = [("", 0)] * len(CLASSES)
    levels = np.ones(len(CLASSES))
    for number, name in enumerate(NAMES):
        mine, told = np.flatnonzero(emotions == number), _ROWS[name]
        likely = heard[told][:, mine]
        ways = itertools.permutations(range(len(mine)))
        best = max(ways, key=lambda way: sum(likely[level, place] for place, level in enumerate(way)))
        for place, level in zip(mine, best, strict=True):
            classes[place] = CLASSES[told[level]]
            levels[place] = _softmax(heard[told, place])[level]
    order = ClassOrder(tuple(classes), tuple(map(float, sureness)), MEASURED)
    found = Measured(order, tuple(map(float, levels)), _chance(heard, _loss(evidence, emotions)))
    if found.sureness < SURE or found.chance > CHANCE:
        raise InputError(
            f"The classifier does not distinguish the emotions: it is {found.sureness:.0%} sure, where 13% is to know "
            f"nothing, and shuffled scores fit as well {found.chance:.0%} of the time. It is untrained, or the network "
            "does not follow the emotions. Nothing was stored."
        )
    return found


def _softmax(logarithms):
    from scipy.special import softmax

    return softmax(logarithms, axis=0)


def _evidence(heard):
    """(8, 22) log-probabilities of each emotion at any of its strengths, from (22, 22) of each strength."""
    return np.stack([np.logaddexp.reduce(heard[_ROWS[name]]) - np.log(len(_ROWS[name])) for name in NAMES])


def _assigned(evidence):
    """(22,) numbers of emotions, with three classes each but one of neutral, whose sum of `evidence` is the largest."""
    from scipy.optimize import linear_sum_assignment

    slots = np.array([NAMES.index(name) for name, _ in CLASSES])
    rows, columns = linear_sum_assignment(evidence[slots], maximize=True)
    emotions = np.empty(len(CLASSES), dtype=int)
    emotions[columns] = slots[rows]
    return emotions


def _loss(evidence, emotions):
    """What it costs the evidence that an emotion has three classes, and neutral one."""
    return float((evidence.max(0) - evidence[emotions, np.arange(len(emotions))]).sum())


def _chance(heard, found):
    """How often it costs no more where each class's scores are shuffled among what was given."""
    random = np.random.default_rng(0)
    shuffled = (_evidence(random.permuted(heard, axis=0)) for _ in range(_SHUFFLES))
    return float(np.mean([_loss(each, _assigned(each)) <= found + 1e-9 for each in shuffled]))
