"""Distillation: a student learns to get in a few passes, without guidance, to where the teacher gets in 75.

Latent consistency distillation (Luo et al., arXiv 2310.04378; for video AnimateLCM, Wang et al., arXiv 2402.00769) in
EDM's parametrization, as consistency models have it (Song et al., arXiv 2303.01469). A clip gets noise of one of 25
levels. The teacher, guided, makes one Euler step to the next level. The student, called at either level and with no
guidance, is to say the same clean latents; at the last level those are the teacher's own. At no noise the student says
what it is given, whatever its weights: so the levels fix each other from the lowest to the highest.
"""

import copy

import torch
from torch import Tensor

from ..emotion.options import NAMES
from ..errors import InputError
from ..model.settings import LATENT_CHANNELS
from ..sampling.guidance import CONDITIONAL, UNCONDITIONAL, guide, needed_branches
from ..sampling.schedules import STUDENT_LEVELS, karras_sigmas
from .draw import draw_clip, generator
from .losses import preconditioning
from .network import Parts, wide
from .parts import build_objective, learns

LOSSES = ("total", "consistency")


class Distillation(Parts):
    """The student's four parts, and the frozen teacher's.

    The target of a level is the student's own answer at the next one, without a gradient, and not that of an average of
    its weights: improved consistency training (Song and Dhariwal, arXiv 2310.14189, section 3.2) found the average to
    be of no use there, and it would be one more copy of the weights. An average is kept for the result (`ema`).

    Args:
        unet, pose_guider, audio_linear, emo_model: the student's.
        options: DistillationOptions.

    Attributes:
        teacher: Parts.
    """

    losses = LOSSES

    def __init__(self, unet, pose_guider, audio_linear, emo_model, options):
        super().__init__(unet, pose_guider, audio_linear, emo_model)
        self.options, self.teacher = options, None
        self.register_buffer("sigmas", torch.tensor(karras_sigmas(STUDENT_LEVELS)), persistent=False)

    def drawing(self, clips, priors):
        """What draws an item by its number, see `draw_item`; InputError if there are no priors to draw from."""
        shown = {record.emotion for record in clips.records if record.emotion} if self.options.labels else set()
        if missing := sorted({"neutral", *shown} - set(priors)):
            raise InputError(f"There is no prior of {missing[0]}: name a folder of --emotions with it.")
        return lambda number: draw_item(clips, priors, self.options, number)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """(2,) losses as LOSSES, means over the batch (`draw_item`, stacked)."""
        sigma, following = self.sigmas[batch["level"]], self.sigmas[batch["level"] + 1]
        noisy = batch["latents"] + wide(sigma) * batch["noise"]
        with torch.no_grad():
            target = self.target(batch, noisy, sigma, following)
        torch.clear_autocast_cache()  # of weights that were cast where no gradient was kept
        consistency = pseudo_huber(denoised(self, batch, noisy, sigma), target, self.options.huber).mean()
        return torch.stack([consistency, consistency])

    def target(self, batch, noisy, sigma, following):
        """What the student is to say: (batch, frames, 4, h, w) clean latents.

        Args:
            batch: as for `forward`.
            noisy: (batch, frames, 4, h, w) at `sigma`.
            sigma, following: (batch,), the noise level and the one below it; 0 below the last.
        """
        ahead = euler_step(noisy, self._guided(batch, noisy, sigma), sigma, following)
        lowest = self.sigmas[-2]
        said = denoised(self, batch, ahead, following.clamp(min=lowest))
        return torch.where(wide(following) > 0, said, ahead)

    def _guided(self, batch, noisy, sigma):
        """The teacher's guided clean latents; its branches one after the other, for less memory."""
        scales = self.options.reference_scale, self.options.emotion_scale
        branches = needed_branches(*scales)
        return guide({branch: denoised(self.teacher, batch, noisy, sigma, branch) for branch in branches}, *scales)


def build_distillation(parts, options) -> Distillation:
    """The distillation of four parts, by name: the student is these, the teacher a copy that shares what is frozen.

    Args:
        parts: as `dicetalk.training.parts.load_parts` gives them.
        options: DistillationOptions.

    Raises:
        InputError: a LoRA without the package peft.
    """
    frozen = [
        parameter
        for part, module in parts.items()
        for name, parameter in module.named_parameters()
        if not learns(f"{part}.{name}", options)
    ]
    teacher = Parts(**copy.deepcopy(parts, {id(parameter): parameter for parameter in frozen}))
    student = build_objective(parts, options, Distillation)
    student.teacher = teacher.requires_grad_(False).eval()
    return student


def denoised(parts: Parts, batch, noisy, sigma, branch=CONDITIONAL) -> Tensor:
    """The clean latents that the parts see in noisy ones, float32, in one branch of guidance.

    Args:
        parts: of the student, or of the teacher.
        batch: `draw_item`, stacked.
        noisy: (batch, frames, 4, h, w), scaled by 0.18215.
        sigma: (batch,), more than 0.
        branch: of `dicetalk.sampling.guidance`.
    """
    seen, told = float(branch != UNCONDITIONAL), float(branch == CONDITIONAL)
    tokens = parts.emo_model.tokens(batch["z"] * told)  # zeros are what no emotion is
    v = parts.predict(batch, noisy, sigma, tokens, seen, told).float()
    scale = preconditioning(sigma)
    return wide(scale["skip"]) * noisy + wide(scale["out"]) * v


def euler_step(noisy, clean, sigma, following) -> Tensor:
    """One Euler step of the probability flow (Karras et al. 2022, algorithm 1) from `sigma` to `following`, (batch,)
    each, towards the clean latents that were seen in the noisy ones, (batch, frames, 4, h, w)."""
    return clean + wide(following / sigma) * (noisy - clean)


def pseudo_huber(one: Tensor, other: Tensor, c: float) -> Tensor:
    """(batch,) mean of sqrt(difference² + c²) - c: squared where the difference is below c, absolute above it."""
    return (((one - other).square() + c**2).sqrt() - c).flatten(1).mean(1)


def draw_item(clips, priors, options, number) -> dict[str, Tensor]:
    """One clip of a step, and all that is random in it, on the CPU.

    Args:
        clips: `dataset.PreparedClips`; labels are needed for `options.labels` alone.
        priors: emotion → (256,) mean, "neutral" among them.
        options: DistillationOptions.
        number: of the item, from the beginning of the distillation.

    Returns:
        What `draw.draw_clip` gives; noise (frames, 4, h, w); level, 0 to 24, of the noise; z (256,), the emotion.
    """
    random = generator(options.seed, "distill", number)
    chosen, given = draw_clip(clips, options, number, random)
    level, place = (int(torch.randint(limit, (), generator=random)) for limit in (STUDENT_LEVELS, len(NAMES)))
    names = [name for name in NAMES if name in priors]
    own = clips.records[chosen].emotion
    name = own if options.labels and own else names[place % len(names)]
    intensity = options.weakest + (options.strongest - options.weakest) * float(torch.rand((), generator=random))
    return given | {
        "noise": torch.randn(options.frames, LATENT_CHANNELS, *clips.size, generator=random),
        "level": torch.tensor(level),
        "z": priors["neutral"] + intensity * (priors[name] - priors["neutral"]),
    }
