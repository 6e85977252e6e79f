"""Checks for values that are not finite numbers, which would become a black video."""

import torch
from torch import Tensor

from ..errors import InputError


class FramesNotFinite(InputError):
    """Decoding came to values that are not finite."""


def require_finite_frames(frames, remedy) -> None:
    """FramesNotFinite for decoded frames with NaN or infinity, of which a black picture would become."""
    if not torch.isfinite(frames).all():
        raise FramesNotFinite(
            "The VAE gave values that are not finite numbers (NaN or infinity), of which no picture can be made: "
            f"{remedy}."
        )


class NotFinite(InputError):
    """Sampling came to values that are not finite, so that what it has done so far is of no use."""


def require_finite_latents(latents: Tensor, precision: str, scales: str) -> None:
    """NotFinite if latents hold NaN or infinity, which would become a black video.

    Args:
        latents: of any shape.
        precision, scales: where these are set, in the user's words.
    """
    if not torch.isfinite(latents).all():
        raise NotFinite(
            "Sampling gave values that are not finite numbers (NaN or infinity), of which no picture can be made: "
            f"choose another precision ({precision}), set {scales} lower, or fetch the checkpoint again."
        )
