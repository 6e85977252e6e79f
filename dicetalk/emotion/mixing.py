"""Mixing emotions: several in, one out.

Emotions are Gaussians with diagonal covariance. As the weights are relative and sum to 1 once normalized, mixing means
is the same as mixing their residuals from neutral.
"""

import math
from dataclasses import replace

import torch

from ..errors import InputError
from .options import METHODS, check_number
from .value import Emotion, TokenMix


def mix(emotions, weights=None, method="barycentre"):
    """Mix emotions by relative weights.

    The order does not matter, bit for bit; equal emotions count as one with the sum of their weights; a mix in which
    only one is left is that one, itself.

    Args:
        emotions: Emotions; mixes by tokens (TokenMix) too where the method is "tokens".
        weights: as many numbers, 0 or more, not all 0; equal ones when None.
        method: "barycentre", the Wasserstein-2 barycentre of the Gaussians: weighted mean of the means and of the
            deviations. "moments", the Gaussian with the mean and the variance of the mixture: it keeps the spread
            between its parts. "tokens", each part goes through the Emotion Bank on its own, and the tokens are mixed.

    Returns:
        Emotion, or TokenMix where the method is "tokens".

    Raises:
        InputError: for weights as above, an unknown method, no emotion, a timeline, or, except by tokens, parts that
            differ in their bank options or are mixes by tokens.
    """
    emotions = list(emotions)
    if method not in METHODS:
        raise InputError(f"The method of a mix must be one of {', '.join(METHODS)}, not {method!r}.")
    if not emotions:
        raise InputError("A mix needs at least one emotion.")
    for emotion in emotions:
        if not isinstance(emotion, (Emotion, TokenMix)):
            raise InputError("Only single emotions can be mixed, not a timeline: mix first, then place in time.")
    weights = normalized([1.0] * len(emotions) if weights is None else list(weights))
    if len(weights) != len(emotions):
        raise InputError(f"A mix of {len(emotions)} emotions needs as many weights, not {len(weights)}.")
    pairs = _joined(zip(weights, emotions, strict=True))
    if len(pairs) == 1:
        return pairs[0][1]
    if method == "tokens":
        parts = _joined((weight * share, part) for weight, emotion in pairs for share, part in emotion.parts)
        return parts[0][1] if len(parts) == 1 else TokenMix(tuple(parts), provenance=_provenance(pairs, method))
    _check_gaussians([emotion for _, emotion in pairs])
    weights = torch.tensor([weight for weight, _ in pairs], dtype=torch.float64)[:, None]
    means = torch.stack([emotion.mean for _, emotion in pairs]).double()
    deviations = torch.stack([emotion.deviation for _, emotion in pairs]).double()
    mean = (weights * means).sum(0)
    if method == "barycentre":
        deviation = (weights * deviations).sum(0)
    else:
        deviation = (weights * (deviations.square() + (means - mean).square())).sum(0).sqrt()
    return Emotion(mean, deviation, provenance=_provenance(pairs, method), bank=pairs[0][1].bank)


def normalized(weights):
    """Relative weights as floats that sum to 1; InputError for a negative one, NaN, infinity, or none above 0."""
    weights = [check_number(weight, 0.0, math.inf, "weight of an emotion in a mix") for weight in weights]
    largest = max(weights, default=0.0)
    if largest == 0:
        raise InputError("The weights of a mix must not all be 0.")
    weights = [weight / largest for weight in weights]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def between(a, b, share):
    """The emotion at `share` (0 to 1) of the way from a to b; a itself at 0, b at 1, and a where the two are equal.

    Along the Wasserstein-2 geodesic of the Gaussians; by tokens where the bank options differ or one is a TokenMix.
    """
    if share <= 0 or a.digest() == b.digest():
        return a
    if share >= 1:
        return b
    if isinstance(a, Emotion) and isinstance(b, Emotion) and a.bank == b.bank:
        mean, deviation = (
            start.double() + share * (end.double() - start.double())
            for start, end in ((a.mean, b.mean), (a.deviation, b.deviation))
        )
        return Emotion(mean, deviation.clamp(min=0), bank=a.bank)
    return replace(mix([a, b], [1 - share, share], "tokens"), provenance="")


def _joined(pairs):
    """[(weight, emotion)] with equal emotions joined and weightless ones left out, in the order of the digests."""
    groups = {}
    for weight, emotion in pairs:
        groups.setdefault(emotion.digest(), (emotion, []))[1].append(weight)
    joined = [(math.fsum(weights), emotion) for _, (emotion, weights) in sorted(groups.items())]
    return [(weight, emotion) for weight, emotion in joined if weight > 0]


def _check_gaussians(emotions):
    if any(isinstance(emotion, TokenMix) for emotion in emotions):
        raise InputError('A mix by tokens is no Gaussian any more: mix it with others by the method "tokens".')
    if len({emotion.bank for emotion in emotions}) > 1:
        raise InputError(
            'The emotions to mix differ in their bank options: set these after the mix, or mix by the method "tokens".'
        )


def _provenance(pairs, method):
    parts = " + ".join(f"{emotion.name or 'unnamed'} {weight:.4g}" for weight, emotion in pairs)
    return f"mix by {method}: {parts}"[:1000]
