"""Compiling a pipeline's UNet before it is needed, on a clip of silence; and what of it was on the disk."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from ..emotion.value import DIMENSION, Emotion
from ..media.portrait import prepare_portrait
from ..model.audio import SAMPLES_PER_FRAME
from ..model.compiling import graphs
from ..sampling.speed import FIRST_WHOLE
from ..sampling.windows import WINDOW


@dataclass(frozen=True)
class Warmed:
    """What a warm-up did.

    Attributes:
        seconds: until the clip was sampled, the compiling included.
        graphs: how many were compiled, or taken from the disk.
        compiled: how many of them were not on the disk.
    """

    seconds: float
    graphs: int
    compiled: int

    def text(self) -> str:
        return f"{self.graphs} graphs in {self.seconds:.1f} s: {self.compiled} compiled, the others were on the disk."


def warm_up(pipeline, width: int, height: int, one_branch: bool = False) -> Warmed:
    """Compile all that a clip needs.

    Args:
        pipeline: a `DiceTalkPipeline` on its device.
        width, height: of the pictures, in pixels, multiples of 64.
        one_branch: whether one branch of guidance alone is computed too, as some steps do where guidance is reused.

    Raises:
        InputError: PyTorch cannot compile for the device.
    """
    portrait = prepare_portrait(Image.new("RGB", (width, height)), (0.25, 0.25, 0.75, 0.75), min(width, height))
    steps = FIRST_WHOLE + 1 if one_branch else 1  # the last of them
    before, start = graphs(), time.perf_counter()
    pipeline.compile_regions()(
        portrait,
        np.zeros(WINDOW * SAMPLES_PER_FRAME, np.float32),
        Emotion(np.zeros(DIMENSION)),
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
        guidance_reuse=2 if one_branch else 1,
    )
    seconds = time.perf_counter() - start
    made, missed = (now - then for now, then in zip(graphs(), before))
    return Warmed(seconds, made, missed)
