"""The parts and the losses in one module: what accelerate wraps."""

import torch
from torch import Tensor

from .draw import draw_item, references_of
from .losses import classify, denoising_loss, discrimination_loss, noise_weight
from .network import Parts, wide

LOSSES = ("total", "denoising", "quantization", "discrimination")


class Objective(Parts):
    """The four published parts, and what they are trained towards.

    Args:
        unet, pose_guider, audio_linear, emo_model: the parts, as `dicetalk.checkpoints.load_part` gives them.
        options: TrainingOptions.
    """

    losses = LOSSES

    def __init__(self, unet, pose_guider, audio_linear, emo_model, options):
        super().__init__(unet, pose_guider, audio_linear, emo_model)
        self.options = options

    def drawing(self, clips, priors):
        """What draws an item by its number, see `draw.draw_item`; InputError if clips or priors do not fit."""
        options, classifier = self.options, self.emo_model.classifier
        references = references_of(clips, priors, options)
        hidden = classifier.fc1.out_features, classifier.fc2.out_features
        return lambda number: draw_item(clips, priors, references, options, hidden, number)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """(4,) losses as LOSSES, means over the batch (`draw.draw_item`, stacked)."""
        options = self.options
        count, frames = batch["latents"].shape[:2]
        sigma, told = batch["sigma"], batch["told"]
        noisy = batch["latents"] + wide(sigma) * batch["noise"]
        emotion_tokens, quantization = self._emotion_tokens(batch)
        prediction, features = self.predict(batch, noisy, sigma, emotion_tokens, batch["seen"], told, mid_features=True)
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
