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


def make_scheduler(sampler: str):
    """A diffusers scheduler for v-prediction over sigmas of 700 to 0.002.

    Args:
        sampler: "euler", as published, or "dpmpp_2m".

    Raises:
        InputError: another name.
    """
    if sampler not in SAMPLERS:
        raise InputError(f"sampler is {sampler!r}: use {' or '.join(SAMPLERS)}.")
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
