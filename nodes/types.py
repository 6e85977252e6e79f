"""The pack's own sockets and what travels through them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from comfy_api.latest import io

from ..dicetalk.media.portrait import PreparedPortrait

DiceTalk = io.Custom("DICETALK")
Audio = io.Custom("DICETALK_AUDIO")
Portrait = io.Custom("DICETALK_PORTRAIT")
Emotion = io.Custom("DICETALK_EMOTION")
Words = io.Custom("DICETALK_WORDS")
CLIP = "dicetalk_clip"  # in a LATENT out of a list: (its number from 1, how many there are)


def clip_vision_input():
    return io.ClipVision.Input(
        "clip_vision",
        tooltip="Stable Video Diffusion's CLIP vision tower, from Load DICE-Talk. Image Only Checkpoint Loader with "
        "svd_xt.safetensors has it too.",
    )


def vae_input():
    return io.Vae.Input(
        "vae",
        tooltip="Stable Video Diffusion's VAE, from Load DICE-Talk. Image Only Checkpoint Loader with "
        "svd_xt.safetensors has it too.",
    )


@dataclass(frozen=True)
class SpeechTokens:
    """DICETALK_AUDIO. `tokens`: (frames, tokens, dim); `unconditional`: (1, tokens, dim); float32."""

    tokens: torch.Tensor
    unconditional: torch.Tensor


@dataclass(frozen=True)
class SpokenWords:
    """DICETALK_WORDS. `words`: (Word, ...) of `dicetalk.script.words`, in the order of their times."""

    words: tuple


@dataclass(frozen=True)
class EncodedPortrait:
    """DICETALK_PORTRAIT.

    Attributes:
        prepared: the resized portrait, its mask and where it was cut from.
        original: (1, height, width, 3) the image it was cut from, 0..1.
        latent: (1, 4, h, w) unscaled VAE latent, mode of the posterior; of a video (N, 4, h, w), one a frame.
        clip_embeds: (1, dim) projected CLIP embedding.
        face_mask: (1, 1, 8h, 8w) in 0..1.
        pictures: of a video: gives its whole pictures, called with frames a second and how many; up to so many of
            (height, width, 3) in 0..1.
    """

    prepared: PreparedPortrait
    original: torch.Tensor
    latent: torch.Tensor
    clip_embeds: torch.Tensor
    face_mask: torch.Tensor
    pictures: Callable[[float, int], torch.Tensor] | None = None
