"""Samplers and their noise levels: the published Euler over Karras' sigmas, and those that need fewer steps."""

import math

import numpy as np
import torch
from diffusers import EDMDPMSolverMultistepScheduler, EulerDiscreteScheduler
from diffusers.schedulers import AysSchedules

from ..errors import InputError
from ..model.settings import SCHEDULER_CONFIG
from .speed import ALIGN_YOUR_STEPS, SAMPLERS, SCHEDULES


class DPMPlusPlus2M(EDMDPMSolverMultistepScheduler):
    """DPM-Solver++(2M) (Lu et al., arXiv 2211.01095), one model call a step; takes sigmas as `EulerDiscreteScheduler`
    does. It remembers the clean latents that the step before predicted."""

    def set_timesteps(self, num_inference_steps=None, device=None, sigmas=None):
        super().set_timesteps(len(sigmas) - 1 if sigmas is not None else num_inference_steps, device)
        if sigmas is not None:
            self.sigmas = torch.tensor(sigmas, dtype=torch.float32)
            self.timesteps = self.precondition_noise(self.sigmas[:-1]).to(device)

    @property
    def remembered(self):
        """The clean latents of the step before, None before the first."""
        return self.model_outputs[-1]

    @remembered.setter
    def remembered(self, latents):
        self.model_outputs[-1], self.lower_order_nums = latents, 1


class LatentConsistency:
    """Multistep consistency sampling (Song et al., arXiv 2303.01469, algorithm 1), the "lcm" of ComfyUI: every step
    takes the denoised latents, and adds fresh noise of the next level to them. For the students of `distill`.

    diffusers' own `LCMScheduler` knows a thousand timesteps, and no noise levels as high as 700.
    """

    def set_timesteps(self, num_inference_steps=None, device=None, sigmas=None):
        """The levels of `student_sigmas`, or those given, which end with 0."""
        levels = student_sigmas(num_inference_steps) if sigmas is None else sigmas
        self.sigmas = torch.tensor(levels, dtype=torch.float32)
        self.timesteps = 0.25 * self.sigmas[:-1].log().to(device)
        self._step = 0

    def set_begin_index(self, index):
        """The number of the step that comes next."""
        self._step = index

    def scale_model_input(self, latents, timestep):
        return latents / (self.sigmas[self._step] ** 2 + 1).sqrt()

    def step(self, prediction, timestep, latents, generator, return_dict=False):
        """A tuple of the next latents, from the model's v. The noise is drawn from the generator, on the CPU."""
        sigma, following = self.sigmas[self._step : self._step + 2].tolist()
        self._step += 1
        latents = latents / (sigma**2 + 1) - prediction * (sigma / math.sqrt(sigma**2 + 1))
        if following > 0:
            latents = latents + following * torch.randn(latents.shape, generator=generator).to(latents.device)
        return (latents,)


def fresh_noise(seed: int) -> torch.Generator:
    """Where the noise of the steps of "lcm" comes from, one tensor of the latents' shape for each but the last: on the
    CPU, from the seed after that of the noise of the start, as ComfyUI draws it there."""
    return torch.Generator().manual_seed((seed + 1) % 2**64)


def make_scheduler(sampler: str):
    """A scheduler as diffusers has them for v-prediction over sigmas of 700 to 0.002.

    Args:
        sampler: "euler", as published, "dpmpp_2m", or "lcm".

    Raises:
        InputError: another name.
    """
    if sampler not in SAMPLERS:
        raise InputError(f"sampler is {sampler!r}: use {' or '.join(SAMPLERS)}.")
    if sampler == "lcm":
        return LatentConsistency()
    if sampler == "euler":
        return EulerDiscreteScheduler.from_config(SCHEDULER_CONFIG)
    names = ("sigma_min", "sigma_max", "prediction_type")
    return DPMPlusPlus2M(sigma_data=1.0, **{name: SCHEDULER_CONFIG[name] for name in names})


def sigmas_of(schedule: str, steps: int) -> list[float] | None:
    """The noise levels of a schedule: `steps` falling ones, and 0; None for "karras", which the samplers know.

    "align_your_steps" are those that Sabour et al. (arXiv 2404.14507) optimized for Stable Video Diffusion, for 10
    steps; between them interpolated, evenly in the logarithm, for another number.

    Raises:
        InputError: another name.
    """
    if schedule not in SCHEDULES:
        raise InputError(f"schedule is {schedule!r}: use {' or '.join(SCHEDULES)}.")
    if schedule != ALIGN_YOUR_STEPS:
        return None
    # diffusers' last one is where sampling ends, 0; between it and the one before lie those down to the smallest.
    anchors = [*AysSchedules["StableDiffusionVideoSigmas"][:-1], SCHEDULER_CONFIG["sigma_min"]]
    logarithms = [math.log(sigma) for sigma in anchors]
    places = np.linspace(0, 1, steps + 1)
    levels = np.exp(np.interp(places, np.linspace(0, 1, len(logarithms)), logarithms))
    return [*levels[:-1].tolist(), 0.0]


def karras_sigmas(steps: int) -> list[float]:
    """Karras' noise levels (Karras et al. 2022, equation 5, rho 7): `steps` falling ones from 700 to 0.002, and 0."""
    scheduler = make_scheduler("euler")
    scheduler.set_timesteps(steps)
    return scheduler.sigmas.tolist()


STUDENT_LEVELS = 25  # between which a student learns to jump, see `dicetalk.training.distillation`


def student_sigmas(steps: int) -> list[float]:
    """The noise levels at which a student is called: of those that it learned at, evenly spaced, from the highest; and
    0. Karras' own levels for so few steps would waste the last call at the lowest level, where nothing is left to do.
    """
    levels = karras_sigmas(max(steps, STUDENT_LEVELS))
    return [*(levels[number * (len(levels) - 1) // steps] for number in range(steps)), 0.0]
