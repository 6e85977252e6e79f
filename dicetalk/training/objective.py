"""The parts and the losses in one module: what accelerate wraps."""

import torch
from torch import Tensor, nn

from .losses import classify, denoising_loss, discrimination_loss, noise_weight, preconditioning

LOSSES = ("total", "denoising", "quantization", "discrimination")


class Objective(nn.Module):
    """The four published parts, and what they are trained towards.

    Args:
        unet, pose_guider, audio_linear, emo_model: the parts, as `dicetalk.checkpoints.load_part` gives them.
        options: TrainingOptions.
    """

    def __init__(self, unet, pose_guider, audio_linear, emo_model, options):
        super().__init__()
        self.unet, self.pose_guider = unet, pose_guider
        self.audio_linear, self.emo_model, self.options = audio_linear, emo_model, options

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """(4,) losses as LOSSES, means over the batch (`draw.draw_item`, stacked)."""
        options = self.options
        count, frames = batch["latents"].shape[:2]
        sigma = batch["sigma"]
        scale = preconditioning(sigma)
        noisy = batch["latents"] + sigma[:, None, None, None, None] * batch["noise"]
        seen, told = batch["seen"], batch["told"]

        audio = batch["audio"] * told[:, None, None, None, None]  # all zeros is what no sound is
        audio_tokens = self.audio_linear(audio.flatten(0, 1)).unflatten(0, (count, frames))
        emotion_tokens, quantization = self._emotion_tokens(batch)
        pose_features = self.pose_guider(batch["face_mask"])
        portrait = (batch["portrait"] * seen[:, None, None, None])[:, None].expand(-1, frames, -1, -1, -1)
        given = (noisy * scale["in"][:, None, None, None, None], portrait)
        prediction, features = self.unet(
            torch.cat(given, dim=2),
            scale["noise"],
            encoder_hidden_states=(batch["clip"] * seen[:, None])[:, None, None],
            added_time_ids=batch["time_ids"],
            audio_tokens=audio_tokens,
            emotion_tokens=emotion_tokens[:, None],
            pose_features=pose_features[:, None],
            face_mask=batch["face_mask"],
            return_dict=False,
            mid_features=True,
        )
        denoising = denoising_loss(prediction, noisy, batch["latents"], sigma).mean()
        discrimination = denoising.new_zeros(())
        if options.discrimination > 0:
            keep = tuple(batch[name].flatten(0, 1) for name in ("keep1", "keep2"))
            logits = classify(self.emo_model.classifier, features, keep).unflatten(0, (count, frames))
            # Where the emotion was not told it cannot be asked for.
            weight = noise_weight(sigma, options.discrimination_noise) * told
            discrimination = (weight * discrimination_loss(logits, batch["allowed"])).mean()
        quantization = quantization.float()
        total = denoising + options.quantization * quantization + options.discrimination * discrimination
        return torch.stack([total, denoising, quantization, discrimination])

    def _emotion_tokens(self, batch):
        z, dropped, bank = batch["z"], batch["told"] == 0, self.options.bank
        if bank != "both":
            return self.emo_model.training_tokens(z, bank == "retrieval", dropped)
        one, quantization = self.emo_model.training_tokens(z, True, dropped)
        every, _ = self.emo_model.training_tokens(z, False, dropped)
        return torch.where(batch["retrieve"][:, None, None], one, every), quantization
