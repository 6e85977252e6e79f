"""What the UNet is conditioned on, for a whole clip, and cut to the windows and branches that sampling needs."""

from dataclasses import dataclass
from typing import Sequence

import torch
from torch import Tensor

from ..emotion.options import FPS
from ..errors import InputError
from ..model.settings import EXPRESSION_BUCKET, MOTION_BUCKET
from .guidance import CONDITIONAL, UNCONDITIONAL

STRONGEST = 2.0


@dataclass(frozen=True)
class Conditions:
    """All that a clip's denoising is conditioned on, before guidance; batch size 1. `N` frames are kept.

    Attributes:
        image_latent: (1 or N, 4, h, w) the portrait, unscaled VAE latent (mode of the posterior); one for the clip, or
            where a video takes its place, one per frame.
        clip_embeds: (1, dim) projected CLIP embedding of the portrait.
        audio_tokens: (N, tokens, dim).
        uncond_audio_tokens: (1, tokens, dim) tokens of an all-zero window.
        emotion_tokens: (1 or N, tokens, dim), one set for the clip or one per frame.
        uncond_emotion_tokens: (1, tokens, dim) tokens of the zero emotion.
        face_mask: (1, 1, 8h, 8w) in 0..1.
        pose_features: (1, channels, h, w).
        fps, motion_bucket_id, expression_bucket_id: the UNet's three time ids.
        speech_strength, emotion_strength: what the speech and the emotion adapters add inside the UNet is multiplied by
            these, in all branches alike; 1 as published.
    """

    image_latent: Tensor
    clip_embeds: Tensor
    audio_tokens: Tensor
    uncond_audio_tokens: Tensor
    emotion_tokens: Tensor
    uncond_emotion_tokens: Tensor
    face_mask: Tensor
    pose_features: Tensor
    fps: float = FPS
    motion_bucket_id: float = MOTION_BUCKET
    expression_bucket_id: float = EXPRESSION_BUCKET
    speech_strength: float = 1.0
    emotion_strength: float = 1.0

    def __post_init__(self):
        for name in ("speech_strength", "emotion_strength"):
            if not 0 <= getattr(self, name) <= STRONGEST:
                raise InputError(f"{name} is {getattr(self, name)}: give 0 to {STRONGEST:g}; 1 is usual.")
        if len(self.image_latent) not in (1, self.num_frames):
            raise InputError(
                f"image_latent holds {len(self.image_latent)} frames, the speech {self.num_frames}: make them equal."
            )

    @property
    def num_frames(self) -> int:
        return len(self.audio_tokens)

    def branch(self, name: str, frames: Sequence[int]) -> dict[str, Tensor]:
        """One branch's inputs for a window; frames from `num_frames` on are the extra, unconditional ones.

        Returns:
            concat_latent (1, frames or 1, 4, h, w), clip_embeds (1, 1, 1, dim), audio_tokens (1, frames, tokens, dim),
            emotion_tokens (1, frames or 1, tokens, dim), added_time_ids (1, 3).
        """
        seen = name != UNCONDITIONAL
        told = name == CONDITIONAL
        one_emotion = len(self.emotion_tokens) == 1 and max(frames) < self.num_frames
        emotions = self.emotion_tokens.expand(self.num_frames, -1, -1)
        latents = self.image_latent
        if len(latents) > 1:
            latents = latents[[min(frame, len(latents) - 1) for frame in frames]]
        ids = (self.fps, self.motion_bucket_id, self.expression_bucket_id)
        return {
            "concat_latent": (latents if seen else torch.zeros_like(latents))[None],
            "clip_embeds": (self.clip_embeds if seen else torch.zeros_like(self.clip_embeds))[:, None, None],
            "audio_tokens": _pick(self.audio_tokens, self.uncond_audio_tokens, frames, told)[None],
            "emotion_tokens": _pick(emotions, self.uncond_emotion_tokens, frames[:1] if one_emotion else frames, told)[
                None
            ],
            "added_time_ids": torch.tensor([ids], dtype=torch.float32, device=self.image_latent.device),
        }


def _pick(tokens: Tensor, unconditional: Tensor, frames: Sequence[int], told: bool) -> Tensor:
    """The tokens of these frames; the unconditional ones past the end, and everywhere in an unconditional branch."""
    if not told:
        return unconditional.expand(len(frames), -1, -1)
    return torch.cat([tokens[f : f + 1] if f < len(tokens) else unconditional for f in frames])
