"""Jobs that take a second, and what came of them."""

import av
import numpy as np
from project import DEMO

from dicetalk.job import Job


def job(folder, checkpoint, name, **changes):
    """0.2 s of the example at 64 pixels in 2 steps; where the face is is said, for finding it takes a second."""
    values = {"portrait": DEMO / "portrait.jpg", "audio": DEMO / "speech.flac", "checkpoint": checkpoint}
    values |= {"size": 64, "steps": 2, "length": 0.2, "device": "cpu", "fps": "12.5", "output": folder / name}
    values |= {"face": "180,60,320,250"}
    return Job.of(values | changes)


def pictures(path):
    """(N, H, W, 3) uint8, the frames of a video."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def left_over(folder):
    """Names of half-written files and of kept steps."""
    return [file.name for file in folder.iterdir() if file.suffix in (".part", ".resume", ".old")]
