"""An engine that makes clip after clip in one process, and computes what they share once."""

import os
import threading
import time
from collections import OrderedDict
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Callable

from ..errors import InputError
from ..job import Job
from ..rendering import (
    as_sampled,
    begin,
    checkpoint_name,
    kept_runs,
    load_pipeline,
    read_inputs,
    rescue,
    sample_best,
    video_metadata,
    write,
)
from ..sampling.finite import NotFinite
from .urls import Copies, at_hand, is_there, is_url, next_to, open_output, put, require_writable

DONE, SKIPPED, FAILED = "done", "skipped", "failed"
KEPT = 8  # values of each kind; rows come grouped by portrait, and a large photo is 40 MB
MANY = {"emotion": 256, "reading": 256}  # of what is small, and comes in any order


@dataclass(frozen=True)
class Outcome:
    """What became of a row.

    Attributes:
        row: its number in the table.
        status: "done", "skipped" (its output was there, of the same job) or "failed".
        output: the file.
        reason: why it failed, in one line.
        frames, seconds: of the video.
        windows: window steps, those that an interrupted run had done included.
        seed, as_asked: of the best of several seeds: which one was kept, and how much of the emotion asked for the
            network reads in it, 0 to 1.
        took: seconds from the reading of the inputs to the end of the output.
        worker: which one it was, on several.
    """

    row: int
    status: str
    output: str | None = None
    reason: str | None = None
    frames: int | None = None
    seconds: float | None = None
    windows: int = 0
    seed: int | None = None
    as_asked: float | None = None
    took: float = 0.0
    worker: str | None = None

    def values(self) -> dict:
        """What is known, as the report has it."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class Stopped(Exception):
    """The engine was asked to stop in the middle of a clip."""


class Kept:
    """Values that are computed once; the ones that were used longest ago go first.

    Args:
        most: how many values of a kind, the first part of their keys, are kept.
        many: kind → how many, for some of them.
    """

    def __init__(self, most=KEPT, many=MANY):
        self.most, self.many = most, many
        self._kinds: dict[str, OrderedDict] = {}

    def once(self, key, compute):
        """The value of a key; `compute()` is called where it is not there."""
        values = self._kinds.setdefault(key[0], OrderedDict())
        if key not in values:
            value = compute()
            values[key] = value
            if len(values) > self.many.get(key[0], self.most):
                values.popitem(last=False)
        values.move_to_end(key)
        return values[key]

    def clear(self):
        self._kinds.clear()


class Engine:
    """Makes clips; weights, portraits' encodings and emotions' tokens are kept for the next ones.

    `make` may be called from two threads: one clip is sampled while another is decoded and written.

    Args:
        on_windows: called with a number of window steps that were computed.
        name: of this engine, in the outcomes.

    Attributes:
        windows: window steps that were computed so far.
    """

    def __init__(self, on_windows: Callable[[int], None] | None = None, name: str | None = None):
        self.name, self.windows = name, 0
        self._on_windows = on_windows or (lambda count: None)
        self._kept, self._copies = Kept(), Copies()
        self._pipeline = self._of = None
        self._sampling, self._writing = threading.Lock(), threading.Lock()
        self._stopped = threading.Event()

    def stop(self):
        """End what is being made at the next window or frame; finished steps are kept."""
        self._stopped.set()

    def make(self, job: Job, row: int = 0) -> Outcome:
        """Make a clip unless it is there; an error is the outcome's reason.

        An interrupted run is resumed from its last saved step where it fits, and else its state is renamed.

        Raises:
            Stopped: `stop` was called; finished steps are kept beside the output.
        """
        try:
            with at_hand(job, self._copies) as here:
                if is_made(here, job.output):
                    return Outcome(row, SKIPPED, job.output, worker=self.name)
                return self._make(here, job.output, row)
        except Stopped:
            raise
        except Exception as error:  # whatever a file holds, the other rows are made
            return Outcome(row, FAILED, job.output, reason_of(error), worker=self.name)

    def check(self, job: Job) -> tuple[int, tuple[int, int], str, tuple] | None:
        """Read and check all that a job names, of the weights only the shapes of the UNet's.

        Returns:
            Window steps, the video's (width, height), the device, and the UNet's arguments as (name, value); None where
            the output is there already.

        Raises:
            InputError: what `make` would fail with.
        """
        from ..checkpoints.loading import unet_arguments
        from ..model.audio import num_frames
        from ..sampling.windows import clamped_plan, window_plan

        with at_hand(job, self._copies) as here:
            if is_made(here, job.output):
                return None
            inputs = read_inputs(here, _silent, once=self._kept.once, draw=False)
        plan = clamped_plan if job.clamp_windows else window_plan
        sampling_steps = as_sampled(here, inputs.checkpoint).steps
        assert sampling_steps is not None
        steps = sum(map(len, plan(num_frames(len(inputs.sound.speech)), sampling_steps)))
        unet = inputs.checkpoint.file("unet")
        network = self._kept.once(("network", unet), lambda: unet_arguments(unet))
        return steps * job.best_of, inputs.portrait.image.size, str(inputs.device), network

    def _make(self, job, output, row):
        """Make a job whose inputs are at hand; `output` is where its own output belongs, the same or a URL."""
        if output != job.output:
            if is_made(job, job.output):  # an earlier run could not put it there
                put(job, output)
                return Outcome(row, DONE, output, worker=self.name)
            require_writable(output)
        with self._sampling:
            self._require_running()
            begun = time.monotonic()
            inputs = read_inputs(job, _silent, once=self._kept.once)
            metadata = video_metadata(job, inputs)
            runs = kept_runs(job, inputs, metadata)
            starts = [_start(run) for run in runs]
            pipeline = self._pipeline_of(inputs, job.compile)
            before = pipeline.windows.done
            with _kept_when_they_end(runs):
                sampled = sample_best(job, pipeline, inputs, runs, starts)
            windows = pipeline.windows.done - before
        with self._writing, _kept_when_they_end(runs):
            frames = write(job, pipeline, sampled, metadata, inputs, self._watched)
        for run in runs:
            run.remove()
        if output != job.output:
            put(job, output)
        took = round(time.monotonic() - begun, 3)
        seconds = frames / float(job.fps)
        outcome = Outcome(row, DONE, output, None, frames, seconds, windows, took=took, worker=self.name)
        if sampled.read is None:
            return outcome
        return replace(outcome, seed=sampled.seed, as_asked=round(sampled.scores[sampled.seed], 4))

    def _pipeline_of(self, inputs, compiled):
        """The pipeline of a checkpoint; one is kept, as rows with the same come one after the other."""
        wanted = inputs.checkpoint.root, inputs.device, inputs.dtype, compiled
        if wanted != self._of:
            if self._pipeline is not None:
                with self._writing:  # what still decodes with the other one ends before its memory is needed
                    self._pipeline = self._of = None
                    self._kept.clear()
            from .sharing import SharingPipeline

            pipeline = load_pipeline(inputs.checkpoint, inputs.dtype, inputs.device, SharingPipeline)
            if compiled:
                pipeline.compile_regions()
            pipeline.share(self._kept.once, Windows(self._count))
            self._pipeline, self._of = pipeline, wanted
        return self._pipeline

    def _count(self, windows):
        self.windows += windows
        self._on_windows(windows)
        self._require_running()

    def _watched(self, frames, total):
        for frame in frames:
            self._require_running()
            yield frame

    def _require_running(self):
        if self._stopped.is_set():
            raise Stopped()


class Windows:
    """Counts the window steps of all clips, and is the progress bar of each.

    Attributes:
        n: window steps of the clip at hand.
        done: of all.
    """

    def __init__(self, on_windows):
        self.total, self.n, self.done = 1, 0, 0
        self._on_windows = on_windows

    @contextmanager
    def clip(self):
        """The bar of the next clip."""
        self.n = 0
        yield self

    def set_postfix_str(self, text, refresh=True):
        """Where the meter's word would be shown."""

    def update(self, count):
        self.n += count
        self.done += count
        self._on_windows(count)


def reason_of(error: Exception) -> str:
    """An error in one line."""
    reason = " ".join(str(error).split())
    return reason if isinstance(error, InputError) else f"{type(error).__name__}: {reason}"


def is_made(job: Job, output: str) -> bool:
    """Whether a file or URL is there with what belongs beside it, and its metadata say that it is of this job, whose
    inputs are at hand."""
    import json

    from ..media.container import read_metadata

    if is_url(output):
        file = open_output(output)
        beside = [is_there(next_to(output, other)) for other in job.beside]
    else:
        file = output if os.path.isfile(output) else None
        beside = [other.is_file() for other in job.beside]
    if file is None:
        return False
    try:
        with nullcontext() if isinstance(file, str) else file:
            made = json.loads(read_metadata(file).get("dicetalk", ""))
    except (OSError, ValueError):  # PyAV's errors are among them; it is no video of ours
        return False
    return (
        all(beside)
        and isinstance(made, dict)
        and made.get("digest") == job.digest()
        and (job.checkpoint is not None or made.get("checkpoint") == _first_checkpoint(made))
    )


def _first_checkpoint(made):
    """The name of the checkpoint that a job without one is made with; the one of a video where there is none now."""
    from ..checkpoints.finding import resolve_checkpoint

    try:
        return checkpoint_name(resolve_checkpoint())
    except InputError:
        return made.get("checkpoint")


def _start(run):
    """What an interrupted run had done; None where there is none that fits, whose state is renamed then."""
    try:
        return begin(run, True, _silent)
    except InputError:
        return begin(run, False, _silent)


@contextmanager
def _kept_when_they_end(runs):
    """Finished steps are not lost, whatever ends the block."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, NotFinite):
            rescue(runs)
        raise


def _silent(text):
    pass
