"""Three-way guidance: unconditional, reference and conditional prediction, and how they become one."""

from torch import Tensor

UNCONDITIONAL, REFERENCE, CONDITIONAL = "unconditional", "reference", "conditional"
BRANCHES = (UNCONDITIONAL, REFERENCE, CONDITIONAL)


def _shares(reference_scale, emotion_scale):
    """Each branch's weight in the guided prediction; they sum to 1."""
    return dict(zip(BRANCHES, (1 - reference_scale, reference_scale - emotion_scale, emotion_scale)))


def needed_branches(reference_scale: float, emotion_scale: float) -> tuple[str, ...]:
    """The branches that have a part in the guided prediction; with a scale of 1, or equal scales, one drops out."""
    shares = _shares(reference_scale, emotion_scale)
    return tuple(branch for branch in BRANCHES if shares[branch] != 0)


def scales_at(
    sigma: float, reference_scale: float, emotion_scale: float, interval: tuple[float, float] | None
) -> tuple[float, float]:
    """The two scales at this sigma: those given inside the interval (low, high), 1 and 1 outside of it.

    With both at 1 the prediction is that of the conditional branch alone, a third of the work (Kynkäänniemi et al.,
    arXiv 2404.07724, found guidance to matter in a middle range of noise levels only). None is everywhere.
    """
    if interval is None or interval[0] <= sigma <= interval[1]:
        return reference_scale, emotion_scale
    return 1.0, 1.0


def guide(predictions: dict[str, Tensor], reference_scale: float, emotion_scale: float) -> Tensor:
    """U + reference_scale (R − U) + emotion_scale (C − R), from the branches that `needed_branches` names."""
    if len(predictions) == len(BRANCHES):
        u, r, c = (predictions[branch] for branch in BRANCHES)
        return u + reference_scale * (r - u) + emotion_scale * (c - r)
    shares = _shares(reference_scale, emotion_scale)
    return sum(prediction * shares[branch] for branch, prediction in predictions.items())
