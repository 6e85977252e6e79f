"""Emotions to test with: made up, but shaped as the released priors are."""

import numpy as np

from dicetalk.emotion.options import NAMES
from dicetalk.emotion.value import Emotion


def make_priors():
    """Eight priors that share one large component (norm about 13.7) and differ by residuals of norm 3.4 to 5."""
    random = np.random.default_rng(7)
    shared = random.standard_normal(256)
    shared *= 13.3 / np.linalg.norm(shared)
    priors = {}
    for number, name in enumerate(NAMES):
        residual = random.standard_normal(256)
        residual -= residual @ shared / (shared @ shared) * shared
        residual *= (3.4 + 0.2 * number) / np.linalg.norm(residual)
        mean = shared if name == "neutral" else shared + residual
        priors[name] = Emotion(mean, name=name, provenance=f"made-up prior {name}")
    return priors


def make_spread(seed):
    """A (256,) deviation of positive numbers."""
    return np.random.default_rng(seed).uniform(0.1, 2.0, 256)
