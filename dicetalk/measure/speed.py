"""Pictures that go through the UNet for a clip, by what sampling leaves out: counts that any machine can make.

The sampling loop itself runs, on a UNet that counts and computes nothing. A picture whose inner levels come from
another step counts as the share of operations that is left of it.
"""

from typing import Any

import torch

from ..emotion.options import FPS
from ..sampling.conditions import Conditions
from ..sampling.counting import DICETALK, Workload, count
from ..sampling.loop import sample
from ..sampling.schedules import make_scheduler, sigmas_of
from ..sampling.speed import ALIGN_YOUR_STEPS, PUBLISHED, SPEEDS, TARGETS, Savings
from ..sampling.windows import WINDOW

SECONDS = (1, 3, 10)
CLAMPED_TARGET = 1 / 0.55  # of a clip of 3 seconds
CHOICES: dict[str, dict[str, Any]] = {
    **{f"speed {name}": settings for name, settings in SPEEDS.items()},
    "10 steps, align_your_steps, dpmpp_2m": {"steps": 10, "schedule": ALIGN_YOUR_STEPS, "sampler": "dpmpp_2m"},
    "guidance_from 100": {"guidance_from": 100.0},
    "guidance_reuse 2": {"guidance_reuse": 2},
    "guidance_reuse 3": {"guidance_reuse": 3},
    "deep_cache 2": {"deep_cache": 2},
    "deep_cache 3": {"deep_cache": 3},
    "clamp_windows": {"clamp_windows": True},
}


class _Counter:
    """Takes the UNet's place: counts pictures, and those whose inner levels are given."""

    dtype, device, deep_channels = torch.float32, torch.device("cpu"), 1

    def __init__(self):
        self.pictures = self.shallow = self.calls = 0

    def __call__(self, sample, timestep, deep=None, deep_out=None, **inputs):
        self.calls += 1
        self.pictures += sample.shape[0] * sample.shape[1]
        if deep is not None:
            self.shallow += sample.shape[0] * sample.shape[1]
        elif deep_out is not None:
            deep_out.zero_()
        return (torch.zeros_like(sample[:, :, :4]),)


def shallow_share() -> float:
    """The share of a window step's operations that is left when the inner levels come from another step, at 512×512."""
    workload = Workload(dtype=torch.float16)
    return count(DICETALK, workload, deep=True).flops / count(DICETALK, workload).flops


def pictures(seconds: float, settings: dict[str, Any], share: float = 1.0) -> float:
    """Pictures that go through the UNet for a clip.

    Args:
        seconds: length of the clip.
        settings: by the names of a `Job`'s fields; the published ones where they are not given.
        share: that a picture counts whose inner levels are given, see `shallow_share`.
    """
    chosen = SPEEDS[PUBLISHED] | settings
    frames, steps = round(seconds * FPS), chosen["steps"]
    one = torch.zeros(1, 1, 1)
    conditions = Conditions(
        image_latent=torch.zeros(1, 4, 1, 1),
        clip_embeds=torch.zeros(1, 1),
        audio_tokens=one.expand(frames, -1, -1),
        uncond_audio_tokens=one,
        emotion_tokens=one,
        uncond_emotion_tokens=one,
        face_mask=torch.zeros(1, 1, 8, 8),
        pose_features=torch.zeros(1, 1, 1, 1),
    )
    counter = _Counter()
    sample(
        counter,
        conditions,
        torch.zeros(frames + WINDOW, 4, 1, 1),
        make_scheduler(chosen["sampler"]),
        steps,
        guidance_interval=(chosen["guidance_to"], chosen["guidance_from"]),
        savings=Savings(chosen["guidance_reuse"], chosen["deep_cache"], chosen["clamp_windows"]),
        sigmas=sigmas_of(chosen["schedule"], steps),
    )
    return counter.pictures - (1 - share) * counter.shallow


def rows() -> list[dict[str, Any]]:
    """For each choice: "name", "pictures" of a clip of 10 s, "fewer" times than published by seconds, and "target"."""
    share = shallow_share()
    published = {seconds: pictures(seconds, {}) for seconds in SECONDS}
    made = []
    for name, settings in CHOICES.items():
        counted = {seconds: pictures(seconds, settings, share) for seconds in SECONDS}
        fewer = {seconds: published[seconds] / counted[seconds] for seconds in SECONDS}
        target = TARGETS.get(name.removeprefix("speed "))
        made.append({"name": name, "pictures": counted[SECONDS[-1]], "fewer": fewer, "target": target})
    return made


def table(counted: list[dict[str, Any]]) -> str:
    """The counts beside their targets, as text."""
    heads = "".join(f"{f'{seconds} s':>8}" for seconds in SECONDS)
    lines = [
        "Pictures through the UNet, three branches, by what sampling leaves out; a picture at a step that reuses its",
        "inner levels counts by the operations that are left. What it costs in looks and lip sync is not counted.",
        f"{'':38}{'10 s clip':>10}   times fewer:{heads}  target",
    ]
    for row in counted:
        target = f"{row['target']:8.2f}" if row["target"] else ""
        if row["name"] == "clamp_windows":
            target = f"{CLAMPED_TARGET:8.2f} at 3 s"
        cells = "".join(f"{value:8.2f}" for value in row["fewer"].values())
        lines.append(f"{row['name']:38}{row['pictures']:10.0f}{'':15}{cells}{target}")
    return "\n".join(lines)
