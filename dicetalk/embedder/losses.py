"""What the embedder is trained towards: the priors, clips of the same emotion by other actors, and no identity."""

import torch
import torch.nn.functional as F
from torch import nn

_SLACK = 1.5  # for batches that are harder than most


def anchor_loss(mean, log_variance, anchor):
    """Negative log-likelihood of each clip's prior under the Gaussian that was read, per dimension, without constants.

    Args:
        mean, log_variance: (batch, 256).
        anchor: (batch, 256), the prior of the emotion that the clip is labelled with.
    """
    return 0.5 * ((anchor - mean).square() * torch.exp(-log_variance) + log_variance).mean()


def contrastive_loss(mean, emotions, actors, temperature):
    """Supervised contrastive loss (Khosla et al. 2020, L_out) between actors.

    A clip's positives are the clips of its emotion by other actors; clips of its emotion by its own actor are left out,
    so that nothing is gained by knowing who acts. Alike is what is near: the similarity is minus the squared distance
    in the emotion space, where neutral has a place (its residual has no direction that a cosine could use).

    Args:
        mean: (batch, 256).
        emotions, actors: (batch,) whole numbers.
        temperature: squared distance, per dimension, that counts as one.

    Returns:
        The mean over the clips that have a positive; 0 where none has.
    """
    size = mean.shape[1]
    logits = -(mean[:, None] - mean[None]).square().sum(-1) / (temperature * size)
    same_emotion = emotions[:, None] == emotions[None]
    same_actor = actors[:, None] == actors[None]
    positive = same_emotion & ~same_actor
    log_share = F.log_softmax(logits.masked_fill(same_emotion & same_actor, -torch.inf), dim=1)
    counts = positive.sum(1)
    each = -torch.where(positive, log_share, 0).sum(1) / counts.clamp(min=1)
    return each.sum() / (counts > 0).sum().clamp(min=1)


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(context, values, weight):
        context.weight = weight
        return values.view_as(values)

    @staticmethod
    def backward(context, gradient):
        return -context.weight * gradient, None


def reverse_gradient(values, weight):
    """The values themselves; their gradient comes back times -weight (Ganin and Lempitsky 2015)."""
    return _Reverse.apply(values, weight)


class IdentityCritic(nn.Module):
    """Recognizes who acts by what the emotion does not explain: how a clip's code deviates from its emotion's others.

    A classifier by least squares (ridge regression on one-hot actors), fitted again to the latest codes before each
    step: a critic that is itself trained step by step lags behind the embedder, and reversing its errors then rewards
    noise. It sees the code, of which mean and log-variance are affine functions, less the average code of the clip's
    emotion and scaled to the spread of what is left, so that it does not go blind as deviations shrink; and, since
    how identity shows may depend on the emotion, the same again with weights for each emotion.

    Args:
        actors: how many there are to choose from.
        size: numbers in a code.
        emotions: how many there are.
        memory: how many of the latest codes it is fitted to.
        ridge: added to the covariance's diagonal, which is about 1.
    """

    def __init__(self, actors, size, emotions, memory=2048, ridge=0.03):
        super().__init__()
        self.actors, self.emotions, self.ridge = actors, emotions, ridge
        self.register_buffer("codes", torch.zeros(memory, size))
        self.register_buffer("labels", torch.zeros(memory, 2, dtype=torch.long))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def forward(self, code, emotions, actors):
        """The share of identity that it cannot explain: 1 knows nothing, 0 everything. Then remembers the codes.

        The share ends a little above 1, at what a critic that knows nothing reaches on codes that it was not fitted to,
        and has no gradient there.

        Args:
            code: (batch, size).
            emotions, actors: (batch,) whole numbers.
        """
        # In float32 under autocast too, as there is no solver in half precision.
        with torch.autocast(code.device.type, enabled=False):
            return self._unexplained(code.float(), emotions, actors)

    def _unexplained(self, code, emotions, actors):
        memory, count = len(self.codes), len(code)
        loss = code.sum() * 0 + 1
        if self.seen >= memory // 4:
            known = min(int(self.seen), memory)
            centres, spread, weights = self._fitted(self.codes[:known], *self.labels[:known].T)
            guess = self._shown(code, emotions, centres, spread) @ weights
            loss = (self._target(actors) - guess).square().sum(-1).mean() / (1 - 1 / self.actors)
            # Least squares that know nothing have an error of 1 + weights / codes on other codes. Clearly more is
            # no better hidden: it has run away from the codes that the critic knows, which must not be rewarded.
            loss = loss.clamp(max=1 + _SLACK * len(weights) / known)
        places = (self.seen + torch.arange(count, device=code.device)) % memory
        self.codes[places] = code.detach().float()
        self.labels[places] = torch.stack([emotions, actors], dim=1)
        self.seen += count
        return loss

    @torch.no_grad()
    def _fitted(self, codes, emotions, actors):
        member = F.one_hot(emotions, self.emotions).to(codes)
        centres = member.T @ codes / member.sum(0)[:, None].clamp(min=1)
        spread = (codes - centres[emotions]).std(0).clamp(min=1e-4)
        shown = self._shown(codes, emotions, centres, spread)
        covariance = shown.T @ shown / len(codes)
        ridge = self.ridge * torch.eye(len(covariance)).to(covariance)
        right = shown.T @ self._target(actors) / len(codes)
        solution = torch.linalg.solve((covariance + ridge).cpu(), right.cpu())  # not every device can
        return centres, spread, solution.to(codes)

    def _shown(self, codes, emotions, centres, spread):
        deviation = (codes - centres[emotions]) / spread
        own = F.one_hot(emotions, self.emotions).to(codes)[:, :, None] * deviation[:, None]
        return torch.cat([deviation, own.flatten(1)], dim=1)

    def _target(self, actors):
        return F.one_hot(actors, self.actors).to(self.codes) - 1 / self.actors
