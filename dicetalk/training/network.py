"""The four published parts as one network, called as training calls them."""

import torch
from torch import Tensor, nn

from .losses import preconditioning


class Parts(nn.Module):
    """The four published parts.

    Args:
        unet, pose_guider, audio_linear, emo_model: as `dicetalk.checkpoints.load_part` gives them.
    """

    def __init__(self, unet, pose_guider, audio_linear, emo_model):
        super().__init__()
        self.unet, self.pose_guider = unet, pose_guider
        self.audio_linear, self.emo_model = audio_linear, emo_model

    def predict(self, batch, noisy, sigma, emotion_tokens, seen=1.0, told=1.0, mid_features=False):
        """The UNet's v, (batch, frames, 4, h, w); with `mid_features` also those of its mid block.

        Args:
            batch: `draw.draw_item`, stacked.
            noisy: (batch, frames, 4, h, w) latents with noise, scaled by 0.18215.
            sigma: (batch,).
            emotion_tokens: (batch, tokens, dim).
            `seen`, `told`: (batch,) or one number, 0 or 1: whether portrait and CLIP, and whether speech, are there.
        """
        count, frames = noisy.shape[:2]
        seen, told = (torch.as_tensor(each, device=noisy.device).expand(count) for each in (seen, told))
        scale = preconditioning(sigma)
        audio = batch["audio"] * told[:, None, None, None, None]  # all zeros is what no sound is
        audio_tokens = self.audio_linear(audio.flatten(0, 1)).unflatten(0, (count, frames))
        pose_features = self.pose_guider(batch["face_mask"])
        portrait = (batch["portrait"] * seen[:, None, None, None])[:, None].expand(-1, frames, -1, -1, -1)
        given = (noisy * wide(scale["in"]), portrait)
        found = self.unet(
            torch.cat(given, dim=2),
            scale["noise"],
            encoder_hidden_states=(batch["clip"] * seen[:, None])[:, None, None],
            added_time_ids=batch["time_ids"],
            audio_tokens=audio_tokens,
            emotion_tokens=emotion_tokens[:, None],
            pose_features=pose_features[:, None],
            face_mask=batch["face_mask"],
            return_dict=False,
            mid_features=mid_features,
        )
        return found if mid_features else found[0]


def wide(values: Tensor) -> Tensor:
    """(batch,) as (batch, 1, 1, 1, 1), to go with latents."""
    return values[:, None, None, None, None]
