"""A whole clip, stage by stage: how long each one works, and what works beside another."""

import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable

from ..emotion.options import FPS
from ..job import Job
from ..media import stream

TAIL_TARGET = 1.1  # times the slowest stage after sampling that all of them together may take
AFTER_SAMPLING = ("decoding", "doubling", "encoding")


class Stages:
    """Seconds that each stage worked, without what it waited for, and when it began and ended."""

    def __init__(self):
        self.busy: dict[str, float] = defaultdict(float)
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}

    @contextmanager
    def working(self, name: str):
        start = time.perf_counter()
        self.first.setdefault(name, start)
        try:
            yield
        finally:
            self.last[name] = time.perf_counter()
            self.busy[name] += self.last[name] - start

    def each(self, name: str, items):
        """The items of an iterator whose making is the work of a stage."""
        items = iter(items)
        try:
            while True:
                with self.working(name):
                    item = next(items, self)
                if item is self:
                    return
                yield item
                del item
        finally:
            if hasattr(items, "close"):
                items.close()

    def without(self, name: str, items):
        """The items of an iterator, the waiting for which is taken off the work of a stage that is at work."""
        items = iter(items)
        while True:
            start = time.perf_counter()
            item = next(items, self)
            self.busy[name] -= time.perf_counter() - start
            if item is self:
                return
            yield item
            del item


def measure_clip(values: dict[str, Any], say: Callable[[str], None] = print) -> dict[str, Any]:
    """Make the video of a job in a temporary folder, and time its stages.

    Args:
        values: of a `Job`, its output left out.
        say: gets the lines that `generate` prints.

    Returns:
        {"device", "clip": its seconds, "size", "stages": {name: {"seconds" of work, "from", "to" since the start}},
        "wall": {"seconds"} of the whole, "tail": {"seconds"} of what comes after sampling, "tail_ratio": of that to its
        slowest stage}.

    Raises:
        InputError: as `dicetalk.rendering.render` does.
    """
    from .. import rendering
    from .bench import device_name

    stages = Stages()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, stages.working("all"):
        job = Job.of(values | {"output": str(Path(folder) / "clip.mp4")})
        with stages.working("reading and portrait"):
            inputs = rendering.read_inputs(job, say)
            metadata = rendering.video_metadata(job, inputs)
            run = rendering.kept_run(job, inputs, metadata)
        with stages.working("loading"):
            pipeline = rendering.load_pipeline(inputs.checkpoint, inputs.dtype, inputs.device)
        encode, decode = pipeline.encode, pipeline.decode

        def timed_encode(*args, **options):
            with stages.working("tokens of speech and emotion"):
                return encode(*args, **options)

        pipeline.encode = timed_encode
        with stages.working("sampling"):
            latents = rendering.sample_latents(job, pipeline, inputs, run)
            if inputs.device.type == "cuda":
                import torch

                torch.cuda.synchronize(inputs.device)
        stages.busy["sampling"] -= stages.busy["tokens of speech and emotion"]
        pipeline.decode = lambda *args, **options: stages.each("decoding", decode(*args, **options))

        def watch(frames, total):
            return stages.without("encoding", frames)

        with _timed_doubling(stages), stages.working("encoding"):
            rendering.write(job, pipeline, rendering.Sampled(latents, job.seed), metadata, inputs, watch)
    shown = {
        name: {"seconds": seconds, "from": stages.first[name] - start, "to": stages.last[name] - start}
        for name, seconds in stages.busy.items()
        if name != "all"
    }
    tail = stages.last["encoding"] - stages.first["encoding"]
    slowest = max(shown[name]["seconds"] for name in AFTER_SAMPLING if name in shown)
    return {
        "device": device_name(inputs.device),
        "clip": len(latents) / FPS,
        "size": job.size,
        "stages": shown,
        "wall": {"seconds": stages.busy["all"]},
        "tail": {"seconds": tail},
        "tail_ratio": tail / slowest,
    }


@contextmanager
def _timed_doubling(stages):
    double = stream.double_frame_rate

    def timed(frames):
        return stages.each("doubling", double(stages.without("doubling", frames)))

    stream.double_frame_rate = timed
    try:
        yield
    finally:
        stream.double_frame_rate = double


def table(report: dict[str, Any]) -> str:
    """The stages as text, and what of them runs beside another."""
    lines = [
        f"A clip of {report['clip']:.1f} s, short side {report['size']} pixels, {report['device']}",
        f"{'stage':32}{'works, s':>10}{'from':>8}{'to':>8}  beside",
    ]
    stages = report["stages"]
    for name, stage in sorted(stages.items(), key=lambda pair: pair[1]["from"]):
        beside = [
            other
            for other, each in stages.items()
            if other != name and each["from"] < stage["to"] and stage["from"] < each["to"]
        ]
        lines.append(
            f"{name:32}{stage['seconds']:10.2f}{stage['from']:8.2f}{stage['to']:8.2f}  {', '.join(sorted(beside))}"
        )
    lines.append(f"{'all':32}{report['wall']['seconds']:10.2f}")
    lines.append(
        f"after sampling: {report['tail']['seconds']:.2f} s, {report['tail_ratio']:.2f} × the slowest stage of it "
        f"(target {TAIL_TARGET})"
    )
    return "\n".join(lines)
