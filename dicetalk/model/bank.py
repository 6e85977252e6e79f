"""The Emotion Bank's Inspector: which codes emotions use, and how emotions correlate there.

Emotions are Emotions or TokenMixes here; of a timeline, look at its keys' emotions.
"""

import numpy as np
import torch

from ..emotion.options import SPACES
from ..emotion.value import Emotion, TokenMix
from ..errors import InputError
from .emotion_tokens import value_tokens, value_usage


@torch.inference_mode()
def usage(model, emotions, device=None, dtype=None):
    """How much emotions use each code of the bank, in every head.

    Args:
        model: EmotionModel.
        emotions: N Emotions, or TokenMixes, whose parts' usage is averaged by their weights.
        device, dtype: where and in which type the model computes; those of its weights when None.

    Returns:
        (N, heads, codes) float32 array; each head sums to 1. Average over the heads for one number per code.
    """
    return value_usage(model, _checked(emotions), device, dtype).numpy()


@torch.inference_mode()
def bank_vectors(model, emotions, space="usage", device=None, dtype=None):
    """Emotions as vectors in which they can be compared.

    Args:
        model: EmotionModel; not needed (None) for the space "embedding".
        emotions: N Emotions or TokenMixes.
        space: "usage", each head's usage of the codes (heads × codes numbers): what the bank is asked for. "tokens",
            the tokens that come out of it (tokens × width numbers): what the UNet is given. "embedding", the mean
            (256 numbers), before the bank.
        device, dtype: see `usage`.

    Returns:
        (N, numbers) float32 array.
    """
    emotions = _checked(emotions)
    if space not in SPACES:
        raise InputError(f"The space to compare emotions in must be one of {', '.join(SPACES)}, not {space!r}.")
    if space == "embedding":
        return torch.stack([emotion.mean for emotion in emotions]).numpy()
    if space == "tokens":
        return value_tokens(model, emotions, device, dtype).flatten(1).float().numpy()
    return usage(model, emotions, device, dtype).reshape(len(emotions), -1)


def correlation(vectors, origin=None):
    """Pearson correlation of every two vectors.

    Args:
        vectors: (N, numbers).
        origin: (numbers,), taken off all of them; neutral's vector leaves how emotions differ, because all share
            one large component.

    Returns:
        (N, N) float64 array. NaN in the row and column of a vector that does not vary, as neutral's own residual.
    """
    vectors = np.asarray(vectors, np.float64)
    size = np.linalg.norm(vectors, axis=1).max()
    if origin is not None:
        vectors = vectors - np.asarray(origin, np.float64)
    centred = vectors - vectors.mean(1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    steady = norms <= 1e-6 * size
    with np.errstate(divide="ignore", invalid="ignore"):
        units = np.where(steady, np.nan, centred / norms)
    return np.clip(units @ units.T, -1, 1)


def _checked(emotions):
    emotions = list(emotions)
    if not emotions or not all(isinstance(emotion, (Emotion, TokenMix)) for emotion in emotions):
        raise InputError("The Emotion Bank shows one or more single emotions, not a timeline: choose one of its keys.")
    return emotions
