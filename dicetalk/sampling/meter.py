"""The meter: what emotion a checkpoint's own classifier reads from the UNet's middle features.

The classifier was trained on those features while the network was given the emotion (the paper's emotion discrimination
objective), so its reading says how far the network follows what it is given, and not what a person would see.
"""

from typing import Callable

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.classes import ClassOrder, load_classifier, load_order
from ..emotion.options import NAMES
from ..emotion.picture import weights_of_eight
from ..errors import InputError
from ..model.emotion_tokens import frame_emotions
from ..model.settings import LATENT_SCALE
from .conditions import Conditions
from .guidance import CONDITIONAL
from .windows import WINDOW, windows

SIGMAS = (0.1, 0.3)  # noise levels of the last reading: low, as the features are of the picture then


class Meter:
    """Reads middle features.

    Args:
        classifier: `EmotionClassifier` on the CPU, in float32.
        order: `ClassOrder` of its classes.

    Attributes:
        shares: (N, 8) of the clip that was read last, as NAMES; None before.
    """

    def __init__(self, classifier, order: ClassOrder):
        self.shares: np.ndarray | None = None
        self._classifier = classifier
        self._emotion = torch.tensor([NAMES.index(emotion) for emotion, _ in order.classes])
        self._seen: dict[int, np.ndarray] = {}

    @classmethod
    def of(cls, checkpoint) -> "Meter":
        """The meter of a checkpoint; InputError where the order of its classes is not known."""
        classifier = load_classifier(checkpoint)
        order = load_order(checkpoint, classifier)
        if order is None:
            raise InputError(
                f"The meter needs the order of the emotion classes of {checkpoint.name}, which is not known: run "
                f"`python -m dicetalk emotion classes --checkpoint {checkpoint.root}` once, or leave out the meter."
            )
        return cls(classifier, order)

    def logits(self, features: Tensor) -> Tensor:
        """(frames, channels, h, w) of the mid block, on any device → (frames, 22) scores on the CPU."""
        pooled = features.detach().float().mean((-2, -1)).cpu()
        return self._classifier(pooled[..., None, None])

    def read(self, features: Tensor) -> np.ndarray:
        """(frames, channels, h, w) of the mid block → (frames, 8) float64 shares, as NAMES, that sum to 1."""
        probabilities = self.logits(features).double().softmax(-1)
        shares = torch.zeros(len(probabilities), len(NAMES), dtype=torch.float64)
        return shares.index_add_(1, self._emotion, probabilities).numpy()

    def watch(self, features: Tensor, frames) -> None:
        """Note what the features of some frames of the clip say while it is sampled, for `text`."""
        self._seen.update(zip(frames, self.read(features)))

    def text(self, num_frames: int) -> str:
        """ "reads happy 83 %", the mean over the frames that were watched last; "" before."""
        kept = [shares for frame, shares in self._seen.items() if frame < num_frames]
        if not kept:
            return ""
        mean = np.mean(kept, axis=0)
        return f"reads {NAMES[mean.argmax()]} {mean.max():.0%}"

    def seen(self, num_frames: int) -> np.ndarray:
        """(N, 8) shares of each frame as it was watched last, as NAMES; NaN where none was."""
        shares = np.full((num_frames, len(NAMES)), np.nan)
        for frame, row in self._seen.items():
            if frame < num_frames:
                shares[frame] = row
        return shares

    def read_clip(
        self,
        conditions: Conditions,
        latents: Tensor,
        features_of: Callable[[Tensor, float, list[int]], Tensor],
        window: int = WINDOW,
    ) -> np.ndarray:
        """Read a finished clip, at low noise, and keep the result in `shares`.

        Args:
            conditions: what it was made with.
            latents: (N, 4, h, w) of it, scaled by 0.18215.
            features_of: called with noisy latents (window, 4, h, w), sigma and the frames' indices, those from N on
                without speech and emotion; gives the mid block's features of the conditional branch.
            window: frames that are read at once; fewer where memory is too small for 25.

        Returns:
            (N, 8) shares, as NAMES: the means over two noise levels, with the same noise every time.
        """
        self._seen = {}
        count = len(latents)
        extra = conditions.image_latent[-1:].to(latents) * LATENT_SCALE
        whole = torch.cat([latents, extra.expand(WINDOW, -1, -1, -1)])
        noise = torch.randn(whole.shape, generator=torch.Generator().manual_seed(0)).to(whole)
        shares, times = np.zeros((count, len(NAMES))), np.zeros((count, 1))
        for sigma in SIGMAS:
            for frames in windows(count + WINDOW, 0, window):
                kept = [place for place, frame in enumerate(frames) if frame < count]
                if kept:
                    read = self.read(features_of(whole[frames] + sigma * noise[frames], sigma, frames))
                    places = [frames[place] for place in kept]
                    shares[places] += read[kept]
                    times[places] += 1  # the last window wraps around
        self.shares = shares / times
        return self.shares


def middle_features(unet, conditions: Conditions, noisy: Tensor, sigma: float, frames, device=None) -> Tensor:
    """The mid block's output for a window in the conditional branch; no more of the UNet is computed.

    Args:
        unet: `DiceTalkUNet`.
        noisy: (frames, 4, h, w), clean latents plus noise of deviation sigma.
        frames: their indices in the clip.
        device: where to compute, the UNet's own when None.

    Returns:
        (frames, channels, height, width of the last level).
    """
    dtype, device = unet.dtype, unet.device if device is None else device
    inputs = {name: each.to(device, dtype) for name, each in conditions.branch(CONDITIONAL, frames).items()}
    portrait = inputs["concat_latent"].expand(-1, len(frames), -1, -1, -1)
    scaled = (noisy / (sigma * sigma + 1) ** 0.5).to(device, dtype)[None]
    return unet(
        torch.cat([scaled, portrait], dim=2),
        0.25 * float(np.log(sigma)),
        encoder_hidden_states=inputs["clip_embeds"],
        added_time_ids=inputs["added_time_ids"].float(),
        audio_tokens=inputs["audio_tokens"],
        emotion_tokens=inputs["emotion_tokens"],
        pose_features=conditions.pose_features[:, None].to(device, dtype),
        face_mask=conditions.face_mask.to(device, dtype),
        audio_scale=conditions.speech_strength,
        emotion_scale=conditions.emotion_strength,
        only_middle=True,
    )


def asked_shares(emotion, priors, num_frames: int) -> np.ndarray:
    """(N, 8) shares of the eight that an emotion asks for in each frame, as NAMES; each row sums to 1.

    An emotion that is stronger than published asks for no other share than the published one.

    Args:
        emotion: an Emotion, a mix or a timeline.
        priors: name → Emotion, with neutral.
    """
    values, index = frame_emotions(emotion, num_frames)
    weights = weights_of_eight(np.stack([value.mean.numpy() for value in values]), priors)[0]
    return (weights / weights.sum(1, keepdims=True))[index.numpy()]


def strongest(read: np.ndarray) -> str:
    """ "happy 83%, neutral 12%": the means over the frames of the three largest of (N, 8) shares, as NAMES."""
    mean = read.mean(0)
    return ", ".join(f"{NAMES[place]} {mean[place]:.0%}" for place in (-mean).argsort()[:3] if mean[place] >= 0.01)


def as_asked(read: np.ndarray, asked: np.ndarray) -> float:
    """How much of what was asked is read, 0 to 1: the mean over the frames of the shares that both have in common."""
    return float(np.minimum(read, asked).sum(1).mean())
