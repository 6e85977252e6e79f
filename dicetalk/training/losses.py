"""What is learned from: denoising under EDM's weighting, and the emotion discrimination objective."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..emotion.options import CLASSES

NOISE_WEIGHTS = ("weighted", "all", "low")
DROPOUT = 0.1  # after both hidden layers of the classifier, as published


def preconditioning(sigma: Tensor) -> dict[str, Tensor]:
    """Stable Video Diffusion's (Blattmann et al. 2023, after Karras et al. 2022, table 1) for v-prediction.

    Args:
        sigma: noise levels of any shape, more than 0.

    Returns:
        skip, out, in, noise (as the UNet gets it), and the loss weight of the denoised latents; all of that shape.
    """
    square = sigma.square() + 1
    return {
        "skip": 1 / square,
        "out": -sigma / square.sqrt(),
        "in": 1 / square.sqrt(),
        "noise": 0.25 * sigma.log(),
        "weight": square / sigma.square(),
    }


def denoising_loss(prediction: Tensor, noisy: Tensor, clean: Tensor, sigma: Tensor) -> Tensor:
    """(batch,) weighted squared error of the denoised latents.

    Args:
        prediction: (batch, frames, 4, h, w) the UNet's v.
        noisy, clean: the same shape: latents with noise sigma added, and without; scaled by 0.18215.
        sigma: (batch,).
    """
    each = {name: value[:, None, None, None, None] for name, value in preconditioning(sigma).items()}
    denoised = each["skip"] * noisy + each["out"] * prediction.float()
    return (each["weight"] * (denoised - clean).square()).flatten(1).mean(1)


def noise_weight(sigma: Tensor, kind: str) -> Tensor:
    """How much the emotion discrimination counts at a noise level; the authors' weighting is unknown.

    "weighted": 1 / (1 + sigma²), the share of the noisy latents' variance that is signal. At high noise the features
    can say nothing of the emotion but what the condition says, and would be taught to repeat it. "low": 1 below
    sigma 1, else 0. "all": 1.
    """
    if kind == "weighted":
        return 1 / (1 + sigma.square())
    return torch.ones_like(sigma) if kind == "all" else (sigma < 1).to(sigma.dtype)


def classify(classifier, features: Tensor, keep: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Scores of the 22 classes, with dropout after both hidden layers.

    Args:
        classifier: `dicetalk.model.emotion.EmotionClassifier`.
        features: (batch·frames, channels, h, w) of the mid block.
        keep: bool masks of what dropout leaves, (batch·frames, hidden) of both hidden layers; None drops nothing.
    """
    x = features.mean(dim=(-2, -1))
    for layer, mask in zip((classifier.fc1, classifier.fc2), keep or (None, None)):
        x = F.relu(layer(x))
        x = x if mask is None else x * mask / (1 - DROPOUT)
    return classifier.fc3(x)


def discrimination_loss(logits: Tensor, allowed: Tensor) -> Tensor:
    """(batch,) cross-entropy, the mean over the frames; the probabilities of all allowed classes are summed.

    Args:
        logits: (batch, frames, 22).
        allowed: (batch, 22) bool: the classes of `labels.classes_of`.
    """
    shares = logits.float().log_softmax(-1).masked_fill(~allowed[:, None], -torch.inf)
    return -shares.logsumexp(-1).mean(1)


def allowed_classes(classes) -> Tensor:
    """(22,) bool of the numbers of classes."""
    allowed = torch.zeros(len(CLASSES), dtype=torch.bool)
    allowed[list(classes)] = True
    return allowed
