"""What each saving of time or memory costs, measured on clips of drawn people."""

import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ..sampling.speed import PUBLISHED
from .drawn_clips import Sampling, Studio
from .goals import Row, confusion, crowd_of, make_all, own_lips, plain_clips
from .speed import CHOICES

_FP8 = torch.float8_e4m3fn


@dataclass(frozen=True)
class Saving:
    """One way to save.

    Attributes:
        name: for the table.
        sampling: what changes in the Sampling.
        dtype: type that the UNet and the pose guider compute in, None for the pipeline's own.
        weights: type that the UNet's weights of two and more dimensions are rounded to, None for none. They compute as
            before: this measures what the rounding costs, not the time or the memory that it saves.
    """

    name: str
    sampling: dict[str, Any] = field(default_factory=dict)
    dtype: torch.dtype | None = None
    weights: torch.dtype | None = None


def _sampling_of(settings):
    """What a choice of speed changes in the Sampling; none of those measured here limits guidance to some sigmas."""
    return {name: value for name, value in settings.items() if name not in ("guidance_from", "guidance_to")}


SAVINGS = (
    *(Saving(f"{steps} steps", {"steps": steps}) for steps in (12, 8, 5)),
    *(
        Saving(f"guidance from sigma {high:g} to {low:g}", {"guidance_interval": (low, high)})
        for high, low in ((100.0, 0.5), (20.0, 0.5), (5.0, 0.3))
    ),
    *(
        Saving(name, _sampling_of(settings))
        for name, settings in CHOICES.items()
        if name not in (f"speed {PUBLISHED}", "guidance_from 100")
    ),
    Saving("windows of 12 frames", {"window": 12}),
    Saving("windows of 25 frames that share 6", {"overlap": 6}),
    Saving("bfloat16", dtype=torch.bfloat16),
    Saving("float16", dtype=torch.float16),
    Saving("weights in fp8 (e4m3)", weights=_FP8),
)


def measure_savings(studio: Studio, priors, sampling: Sampling, total=2, savings=SAVINGS, on_result=None) -> list[Row]:
    """A row for the settings themselves, then one for each saving; they make the same clips from the same noise.

    Args:
        total: people, each with the eight emotions.
        on_result: called as `on_result(done, total)`.
    """
    clips, pipeline = plain_clips(priors, crowd_of(total)), studio.pipeline
    among, rows, done, plain = crowd_of(50), [], 0, None
    whole = (1 + len(savings)) * len(clips)
    for saving in (Saving(f"as asked ({sampling.steps} steps)"), *savings):

        def on_one(*_):
            nonlocal done
            done += 1
            if on_result is not None:
                on_result(done, whole)

        changed = replace(sampling, **saving.sampling)
        unet, guider = pipeline.unet, pipeline.pose_guider
        try:
            _change(pipeline, saving)
            results = make_all(studio, {"": clips}, changed, on_one)[""]
        finally:
            pipeline.unet, pipeline.pose_guider = unet, guider
        seconds = float(np.mean([each.seconds for each in results]))
        plain = seconds if plain is None else plain
        right = float(np.mean([each.named == each.asked.about["emotion"] for each in results]))
        found = float(np.mean([studio.nearest(each, among)[0] == each.asked.person for each in results]))
        lips = own_lips(results)
        numbers = {"accuracy": right, "correlation": lips, "identity": found, "seconds": seconds}
        rows.append(
            Row(
                saving.name,
                f"emotion {right:.0%}, mouth {lips:.2f}, identity {found:.0%}, time {seconds / plain:.2f}",
                clips=len(results),
                numbers={**numbers, "time": seconds / plain, "confusion": confusion(results)},
            )
        )
    return rows


def _change(pipeline, saving):
    if saving.dtype is not None:
        pipeline.unet = copy.deepcopy(pipeline.unet).to(saving.dtype)
        pipeline.pose_guider = copy.deepcopy(pipeline.pose_guider).to(saving.dtype)
    if saving.weights is not None:
        pipeline.unet = copy.deepcopy(pipeline.unet)
        with torch.no_grad():
            for parameter in pipeline.unet.parameters():
                if parameter.ndim >= 2:
                    parameter.copy_(parameter.to(saving.weights).to(parameter.dtype))
