"""Chosen speed: what sampling may leave out, and named choices of it. All of it changes the result; nothing is left out
unless it is asked for."""

from dataclasses import dataclass
from typing import Any

from ..errors import InputError

ALIGN_YOUR_STEPS = "align_your_steps"
SAMPLERS, SCHEDULES = ("euler", "dpmpp_2m", "lcm"), ("karras", ALIGN_YOUR_STEPS)
FIRST_WHOLE = 2  # steps at the start from which nothing is left out: there the picture is decided
MOST_SKIPPED = 10

PUBLISHED = "published"
# Name → settings, by the names of a `Job`'s fields.
SPEEDS: dict[str, dict[str, Any]] = {
    PUBLISHED: {
        "steps": 25,
        "sampler": "euler",
        "schedule": "karras",
        "guidance_from": 1000.0,
        "guidance_to": 0.0,
        "guidance_reuse": 1,
        "deep_cache": 1,
        "clamp_windows": False,
    }
}
# Chosen by what they cost the miniature, which `dicetalk evaluate --only savings` measures.
SPEEDS["fast"] = SPEEDS[PUBLISHED] | {"steps": 12, "deep_cache": 3}
SPEEDS["draft"] = SPEEDS["fast"] | {"steps": 8}
TARGETS = {"fast": 3.3, "draft": 4.5}  # times fewer pictures through the UNet than published


@dataclass(frozen=True)
class Savings:
    """What is left out of the steps.

    Attributes:
        guidance_reuse: compute all branches of guidance only at every so many steps, see
            `dicetalk.sampling.reuse.GuidanceReuse`; 1 at all.
        deep_cache: compute the inner levels of the UNet only at every so many steps, see
            `dicetalk.sampling.reuse.DeepCache`; 1 at all.
        clamp_windows: end the windows where the clip does, see `dicetalk.sampling.windows.clamped_windows`.

    Raises:
        InputError: a number that cannot be meant.
    """

    guidance_reuse: int = 1
    deep_cache: int = 1
    clamp_windows: bool = False

    def __post_init__(self):
        for name in ("guidance_reuse", "deep_cache"):
            value = getattr(self, name)
            if value != int(value) or not 1 <= value <= MOST_SKIPPED:
                raise InputError(f"{name} is {value}: give a whole number from 1, every step, to {MOST_SKIPPED}.")

    def begins_anew(self, step: int) -> bool:
        """Whether a run that was interrupted before this step (from 0) continues bit for bit: it needs no inner levels
        of an earlier one, which are too large to be kept on the disk."""
        return self.deep_cache == 1 or all(whole_step(step, each) for each in (self.deep_cache, self.guidance_reuse))

    def extra_frames(self, window: int) -> int:
        """Frames that are sampled behind the clip and dropped."""
        return 0 if self.clamp_windows else window


NOTHING = Savings()


def whole_step(step: int, every: int) -> bool:
    """Whether everything is computed at this step (from 0): at the first two, and at every so many after them."""
    return step < FIRST_WHOLE or (step - FIRST_WHOLE + 1) % every == 0
