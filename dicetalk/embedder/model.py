"""The embedder's network: visual and audio tokens meet in cross-modal attention and give one Gaussian.

The method is that of the paper's disentangled emotion embedder (arXiv 2504.18087) in outline: cross-modal attention,
and a Gaussian over the emotion space that is free of identity. Its layers are this project's own; the authors
released neither their embedder's weights nor its configuration.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ..emotion.value import DIMENSION

RATE = 12.5  # tokens a second, of both modalities: one per video frame of DICE-Talk
VISUAL_FEATURES = 52  # ARKit's blendshapes
AUDIO_FEATURES = 384  # whisper-tiny's width
LOG_VARIANCES = (-9.0, 3.0)  # deviations of 0.01 to 4.5; the released priors' residuals have 0.25


@dataclass(frozen=True)
class EmbedderConfig:
    """Sizes of the network, and which emotions it was anchored to.

    Attributes:
        emotions: names of the emotions, in the order of the network's `anchors`; "neutral" is among them.
        visual_features, audio_features: numbers per visual and per audio token.
        width, heads, layers: of the attention.
        code: numbers that the Gaussian is computed from. Identity can hide in any direction of a wide space; the eight
            priors differ in seven.
        tokens: most tokens of a modality in one window; longer clips are read window by window.
    """

    emotions: tuple
    visual_features: int = VISUAL_FEATURES
    audio_features: int = AUDIO_FEATURES
    width: int = 64
    heads: int = 4
    layers: int = 2
    code: int = 8
    tokens: int = 50


class EmotionEmbedder(nn.Module):
    """Visual and audio tokens → mean and log-variance of a Gaussian in the 256-d emotion space.

    The mean is the neutral prior plus a residual that the network computes. The released priors share one large
    component (norm 13.7) and differ by residuals of norm 3.4 to 5.1, which alone hold the emotion. So a network that
    has learned nothing says "neutral", its whole range goes to how emotions differ, and what it gives is where
    the released UNet knows its way, however unusual a clip is. The residual's size is in units of the priors' own
    residuals, so that training starts at the right scale. Residual and log-variance are both affine functions of one
    narrow code, so that freeing the code of identity frees both.

    Tensors: `anchors` (emotions, 256) are the priors it was trained towards, in the order of `config.emotions`;
    `visual_mean`, `visual_deviation`, `audio_mean`, `audio_deviation` standardize the tokens.

    Args:
        config: EmbedderConfig.
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        width = config.width
        self.register_buffer("anchors", torch.zeros(len(config.emotions), DIMENSION))
        self.visual = Tokens(config.visual_features, width)
        self.audio = Tokens(config.audio_features, width)
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.layers))
        self.visual_pool, self.audio_pool = Pool(width), Pool(width)
        self.code = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, config.code))
        self.residual = nn.Linear(config.code, DIMENSION)
        self.log_variance = nn.Linear(config.code, DIMENSION)

    @property
    def neutral(self):
        """(256,): the prior of neutral, from which residuals are counted."""
        return self.anchors[self.config.emotions.index("neutral")]

    def forward(self, visual, visual_mask, audio, audio_mask):
        """Embed a batch of windows.

        Args:
            visual: (batch, tokens, 52) blendshapes, 12.5 a second.
            visual_mask: (batch, tokens) bool, true where a face was seen.
            audio: (batch, tokens, 384) Whisper states, 12.5 a second.
            audio_mask: (batch, tokens) bool, true where there is sound.
            A modality without a single true value is missing, which the network knows. Masked tokens have no effect.

        Returns:
            mean, log_variance: (batch, 256) each.
        """
        return self.gaussian(self.encode(visual, visual_mask, audio, audio_mask))

    def encode(self, visual, visual_mask, audio, audio_mask):
        """(batch, code): all that the Gaussian is computed from; arguments as `forward`."""
        visual = self.visual(visual, visual_mask)
        audio = self.audio(audio, audio_mask)
        for block in self.blocks:
            visual, audio = block(visual, visual_mask, audio, audio_mask)
        pooled = torch.cat([self.visual_pool(visual, visual_mask), self.audio_pool(audio, audio_mask)], dim=-1)
        return self.code(pooled)

    def gaussian(self, code):
        """(batch, code) → mean, log_variance: (batch, 256) each."""
        residuals = self.anchors - self.neutral
        scale = residuals.norm(dim=-1).mean() / math.sqrt(DIMENSION)
        log_variance = self.log_variance(code).clamp(*LOG_VARIANCES)
        return self.neutral + scale * self.residual(code), log_variance


class Tokens(nn.Module):
    """A modality's features, standardized, projected, with their times."""

    def __init__(self, features, width):
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.project = nn.Linear(features, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, features, mask):
        features = torch.where(mask[..., None], (features - self.mean) / self.deviation, 0)
        tokens = self.norm(self.project(features))
        return tokens + positions(tokens.shape[1], tokens.shape[2]).to(tokens)


def positions(count, width):
    """(count, width) sines and cosines of the token's number, which is its time, as in Vaswani et al. 2017."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = torch.arange(count)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class Block(nn.Module):
    """Each modality attends to itself, then to the other, then thinks token by token."""

    def __init__(self, width, heads):
        super().__init__()
        self.visual_self, self.audio_self = Attention(width, heads), Attention(width, heads)
        self.visual_cross, self.audio_cross = Attention(width, heads), Attention(width, heads)
        self.visual_mlp, self.audio_mlp = mlp(width), mlp(width)

    def forward(self, visual, visual_mask, audio, audio_mask):
        visual = visual + self.visual_self(visual, visual, visual_mask)
        audio = audio + self.audio_self(audio, audio, audio_mask)
        visual, audio = (
            visual + self.visual_cross(visual, audio, audio_mask),
            audio + self.audio_cross(audio, visual, visual_mask),
        )
        return visual + self.visual_mlp(visual), audio + self.audio_mlp(audio)


def mlp(width):
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


class Attention(nn.Module):
    """Multi-head attention over another sequence's unmasked tokens and one learned token.

    The learned token is what is attended to where the other sequence has nothing.
    """

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query_norm, self.key_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.nothing = nn.Parameter(torch.randn(width) / math.sqrt(width))
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)

    def forward(self, tokens, others, mask):
        batch = len(others)
        others = torch.cat([self.nothing.expand(batch, 1, -1), self.key_norm(others)], dim=1)
        mask = F.pad(mask, (1, 0), value=True)[:, None, None]
        query = self.query(self.query_norm(tokens))
        parts = [query, *self.key_value(others).chunk(2, dim=-1)]
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(attended.transpose(1, 2).flatten(2))


class Pool(nn.Module):
    """The mean of the unmasked tokens; a learned vector where there are none."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.missing = nn.Parameter(torch.zeros(width))

    def forward(self, tokens, mask):
        weights = mask[..., None].to(tokens)
        mean = (self.norm(tokens) * weights).sum(1) / weights.sum(1).clamp(min=1)
        return torch.where(mask.any(1, keepdim=True), mean, self.missing)
