"""Making the video of a job: everything is checked first, then the weights load, and the run can be resumed."""

import os
import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Callable

from .embedder.options import ClipOptions
from .errors import InputError
from .job import Job
from .sampling.speed import PUBLISHED, SPEEDS, Savings
from .sampling.student import PUBLISHED_SETTINGS, own_settings, student_text


@dataclass(frozen=True)
class Made:
    """A video that was written.

    Attributes:
        frames: how many, 0 where another process wrote it.
        seconds: its length.
        width, height: its size in pixels.
        sampled: what it was decoded from; None for a dialogue.
    """

    frames: int
    seconds: float
    width: int
    height: int
    sampled: "Sampled | None" = None


@dataclass(frozen=True)
class Inputs:
    """What a job names, read and checked.

    Attributes:
        image: the portrait's PIL image as it is in the file; of a video, its first picture cut and resized.
        portrait: `dicetalk.media.portrait.PreparedPortrait` of it, or of the video.
        sound: `dicetalk.media.audio.Sound`, for the model and for the video.
        emotion: an `Emotion`, a mix, or an `EmotionTimeline`.
        checkpoint: `dicetalk.checkpoints.Checkpoint`.
        device, dtype: torch's, to compute on and in.
        words: the script's, as `dicetalk.script.words.Word`; none without a script.
        priors: name → Emotion of the checkpoint.
        meter: `dicetalk.sampling.meter.Meter` where the job asks for one.
    """

    image: Any
    portrait: Any
    sound: Any
    emotion: Any
    checkpoint: Any
    device: Any
    dtype: Any
    words: tuple = ()
    priors: Any = None
    meter: Any = None


@dataclass(frozen=True)
class Sampled:
    """A clip before it is decoded.

    Attributes:
        latents: (N, 4, h, w), one a frame at 12.5 fps.
        seed: the one that was kept.
        read: (N, 8) shares of the eight that the network itself reads in it; None without the meter.
        asked: (N, 8), what was asked; None without the meter.
        scores: seed → how much of what was asked is read, 0 to 1, of every seed that was sampled; empty without the
            meter.
    """

    latents: Any
    seed: int
    read: Any = None
    asked: Any = None
    scores: dict[int, float] = field(default_factory=dict)

    def text(self) -> str:
        """What the meter says, in one line; "" without it."""
        if self.read is None:
            return ""
        from .sampling.meter import strongest

        text = f"The network reads {strongest(self.read)}; {self.scores[self.seed]:.0%} as asked."
        if len(self.scores) > 1:
            others = ", ".join(f"{seed}: {score:.1%}" for seed, score in self.scores.items())
            text += f" Seed {self.seed} is kept ({others})."
        return text


def render(
    job: Job,
    resume: bool = False,
    say: Callable[[str], None] | None = None,
    warn: Callable[[str], None] | None = None,
    named: Callable[[str], str] = str,
) -> Made:
    """Make the video of a job. Of several processes that share it out, the first one writes, and keeps the steps; it
    says at the end what share of the time was communication.

    Args:
        job: the job.
        resume: resume an interrupted run from its last saved step; without one, start at the beginning.
        say: gets each line about what is read and done; printed when None.
        warn: gets the line that says how an unexpected end can be resumed; printed to standard error when None.
        named: how an error calls a field of the job, for instance "--seed" for "seed".

    Raises:
        InputError: something cannot be used; the message names it. Finished steps are kept beside the output.
    """
    from .sampling.processes import process, traffic

    number, processes = process()
    first = number == 0
    say = (say or _print) if first else (lambda text: None)
    inputs = read_inputs(job, say, named)
    metadata = video_metadata(job, inputs)
    runs = kept_runs(job, inputs, metadata)
    starts = begin_all(runs, resume, say)

    from .sampling.finite import NotFinite

    pipeline = load_pipeline(inputs.checkpoint, inputs.dtype, inputs.device)
    try:
        if job.compile:
            pipeline.compile_regions()
        traffic.restart()
        sampled = sample_best(job, pipeline, inputs, runs, starts)
        if first:
            count = write(job, pipeline, sampled, metadata, inputs)
        else:
            count = len(list(pipeline.decode_by_all(sampled.latents, job.decode_chunk_size)))
    except BaseException as error:  # whatever ended the run, its finished steps are not lost
        hint = "" if isinstance(error, NotFinite) or not first else rescue(runs)
        if hint and isinstance(error, (InputError, KeyboardInterrupt)):
            raise type(error)(f"{error} {hint}".strip()) from error
        if hint:
            (warn or _print_error)(hint)
        raise
    if first:
        for run in runs:
            run.remove()
    if processes > 1:
        say(traffic.text())
    if sampled.read is not None:
        say(sampled.text())
        if job.meter:
            say(f"Wrote {job.meter_file.absolute()}")
    return Made(count, count / float(job.fps), *video_size(job, inputs.portrait), sampled)


def read_inputs(
    job: Job,
    say: Callable[[str], None],
    named: Callable[[str], str] = str,
    once: Callable[[tuple, Callable[[], Any]], Any] = lambda key, compute: compute(),
    draw: bool = True,
) -> Inputs:
    """Read and check everything that a job names, but for the weights of the network.

    Args:
        once: called with a key and what computes a value that depends on the key alone; it may return the value of an
            earlier call.
        draw: whether the chart of a reference clip is written.
    """
    job.check_files(named)

    from .checkpoints.priors import load_priors, read_emotion

    clip = job.clip
    if clip is not None:
        clip = job.open_clip(clip, [job.portrait or job.video, job.speech], [("output", job.output)], named)
    else:
        read_emotion(job.emotion)  # a typing error is reported at once; its names, when the checkpoint is known

    from .media.audio import load_sound
    from .model.audio import SAMPLE_RATE, SAMPLES_PER_FRAME

    sound = load_sound(job.speech, job.start, job.length)
    if job.noise == "published":
        whole = len(sound.speech) // SAMPLES_PER_FRAME
        if whole == 0:
            raise InputError(
                f"The speech in {job.speech} is shorter than a frame of 80 ms, of which the published noise needs a "
                "whole one: give a longer piece, or take the usual noise."
            )
        sound = replace(sound, speech=sound.speech[: whole * SAMPLES_PER_FRAME])
    for note in sound.notes:
        say(f"Note: {note}")

    from .checkpoints.finding import MINIATURE_SIZE, resolve_checkpoint
    from .emotion.parsing import resolve
    from .emotion.timeline import late_keys
    from .memory import choose_device, choose_dtype

    device = choose_device(job.device, named("device"))
    if job.noise == "published" and device.type != "cuda":
        raise InputError(
            f"{named('noise')} is published, which an NVIDIA GPU alone can draw, and {named('device')} is {device}: "
            f"use cuda, or the usual noise."
        )
    dtype = choose_dtype(job.dtype, device)
    checkpoint = resolve_checkpoint(job.checkpoint)
    priors = load_priors(checkpoint.folder("emotions"))
    meter = read_meter(checkpoint, priors) if job.metered else None
    if clip is not None:
        reader = job if draw else replace(job, chart=None)
        whisper = checkpoint.folder("whisper") if job.needs_whisper else None

        def read():
            with reading_bar() as on_progress:
                return reader.read_clip(clip, priors, whisper, device, on_progress)

        files = [file_stamp(file) for file in (job.clip, job.landmarks) if file]
        how = [getattr(reader, option.name) for option in fields(ClipOptions)]
        reading = once(("reading", *files, *how, checkpoint.root), read)
        if reader.chart:
            say(f"Wrote {Path(reader.chart).absolute()}")
        say(reading.text())
        emotion = first = reading.emotion
    else:
        first = read_emotion(job.emotion, priors)
        emotion = resolve(first, priors, job.emotion)
        for note in late_keys(emotion, len(sound.speech) / SAMPLE_RATE):
            say(f"Note: {note}")
    words = ()
    if job.script is not None:
        from .script.placing import place_script
        from .script.timeline import script_emotion

        script = job.read_script(priors)
        words, method, note = place_script(script, sound.speech, checkpoint, job.place_words)
        if note:
            say(f"Note: {note}")
        say(f"Placed {len(words)} words of the script by {method}.")
        emotion = script_emotion(script, words, priors, first, job.fade, named("emotion"))

    if job.video is None:
        portrait, image = _read_picture(job, once)
    else:
        portrait, sound = _read_video(job, sound)
        image = portrait.image
    for note in portrait.notes:
        say(note)
    for warning in portrait.warnings:
        say(f"Note: {warning}")
    if checkpoint.student is not None:
        say(f"Note: {student_text(checkpoint.student, _settings(job), named)}")
    if checkpoint.untrained:
        say(f"Note: the checkpoint {checkpoint.name} is untrained, so the picture will be noise.")
    if checkpoint.miniature:
        say(f"Note: the checkpoint {checkpoint.name} is the miniature, which knows drawn people only.")
        if job.size != MINIATURE_SIZE:
            say(f"Note: it learned pictures of {MINIATURE_SIZE} pixels: give --size {MINIATURE_SIZE}.")
    return Inputs(image, portrait, sound, emotion, checkpoint, device, dtype, tuple(words), priors, meter)


def as_sampled(job: Job, checkpoint) -> Job:
    """The job as the checkpoint is sampled: with the published steps, sampler and scales where it has none, or those of
    a student."""
    return replace(job, **own_settings(checkpoint.student, _settings(job)))


def _settings(job):
    return {name: getattr(job, name) for name in PUBLISHED_SETTINGS}


def read_meter(checkpoint, priors):
    """The checkpoint's `Meter`; InputError where it cannot read, or the priors lack what says what was asked."""
    from .sampling.meter import Meter

    if "neutral" not in priors:
        raise InputError("The priors lack neutral, from which the meter measures: leave out the meter and --best-of.")
    return Meter.of(checkpoint)


def _read_picture(job, once):
    """The prepared portrait, and the image that it is of."""
    from .media.image import load_image
    from .media.portrait import prepare_portrait

    picture = file_stamp(job.portrait)
    image = once(("image", picture), lambda: load_image(job.portrait))
    portrait = once(
        ("portrait", picture, job.face, job.size, job.crop, job.margin),
        lambda: prepare_portrait(image, job.face_choice, short_side=job.size, crop=job.crop, expand_ratio=job.margin),
    )
    return portrait, image


def _read_video(job, sound):
    """The prepared video, cut to the speech; and the speech, which ends with the pictures if it is the video's own."""
    from .media.moving import fitted, prepare_video
    from .model.audio import SAMPLES_PER_FRAME, num_frames
    from .reading.streams import look_into, stream_frames

    if look_into(job.video)[0] is None:
        raise InputError(f"{job.video} holds sound and no pictures: give a video of a person.")
    start = job.start if job.audio is None else 0.0
    frames = num_frames(len(sound.speech))
    portrait = prepare_video(
        lambda: stream_frames(job.video, start=start),
        frames,
        job.face_choice,
        short_side=job.size,
        crop=job.crop,
        expand_ratio=job.margin,
        name=job.video,
    )
    fitted(portrait.frames, frames)  # speech that is too long is said before the weights load
    if job.audio is None:
        sound = replace(sound, speech=sound.speech[: len(portrait.frames) * SAMPLES_PER_FRAME])
    return portrait, sound


def file_stamp(path) -> tuple[str, int, int]:
    """Changes when a file does: its path, size and time."""
    status = os.stat(path)
    return os.path.abspath(path), status.st_size, status.st_mtime_ns


def kept_runs(job, inputs, metadata):
    """The states of the runs of all seeds, which are kept beside the output."""
    return [kept_run(one, inputs, metadata, name) for one, name in zip(job.seeds(), run_names(job), strict=True)]


def run_names(job) -> list[str]:
    """What the states of the runs of all seeds are named by: the output, and of several also the seed."""
    return [job.output] if job.best_of == 1 else [f"{job.output}.seed{one.seed}" for one in job.seeds()]


def kept_run(job, inputs, metadata, output=None):
    """A run's state, kept beside `output`, the job's own when None; what it depends on is named as the user gave it."""
    import diffusers
    import numpy as np
    import torch

    from .model.audio import num_frames
    from .model.settings import LATENT_CHANNELS
    from .sampling.resume import Run, digest
    from .sampling.windows import WINDOW

    job, portrait = as_sampled(job, inputs.checkpoint), inputs.portrait
    width, height = portrait.image.size
    pictures = {"--portrait": digest(np.asarray(inputs.image))}
    if job.video is not None:
        pictures = {"--video": digest(portrait.frames), "--denoise": job.strength}
    settings = {
        **pictures,
        "--audio, --start or --length": digest(np.asarray(inputs.sound.speech)),
        "--emotion": digest(inputs.emotion.digest()),
        "--checkpoint": digest(*checkpoint_stamp(inputs.checkpoint)),
        "face (--face)": list(portrait.face_box),
        "part of the portrait (--crop, --margin)": list(portrait.crop_box),
        **{f"--{name}": getattr(job, name) for name in ("size", "steps", "seed", "noise")},
        "--reference-scale": job.reference_scale,
        "--emotion-scale": job.emotion_scale,
        "--speech-strength": job.speech_strength,
        "--emotion-strength": job.emotion_strength,
        **{f"--{name.replace('_', '-')}": getattr(job, name) for name in SPEEDS[PUBLISHED] if name != "steps"},
    }
    computing = {
        "--device": metadata["device"],
        "--dtype": metadata["dtype"],
        "--smaller-windows": job.smaller_windows,
        "--compile": job.compile,
        "dicetalk": metadata["version"],
        "PyTorch": torch.__version__,
        "diffusers": diffusers.__version__,
    }
    frames = num_frames(len(inputs.sound.speech)) + (0 if job.clamp_windows else WINDOW)
    shape = frames, LATENT_CHANNELS, height // 8, width // 8
    tensors = 1 + (job.guidance_reuse > 1) + (job.sampler == "dpmpp_2m")
    resumable = Savings(job.guidance_reuse, job.deep_cache, job.clamp_windows).begins_anew
    return Run(output or job.output, settings, computing, job.steps, shape, tensors=tensors, resumable=resumable)


def checkpoint_stamp(checkpoint):
    """Name, size and time of every file that has a part in sampling: reading gigabytes to compare would take longer."""
    from .checkpoints.student import STUDENT_FILE

    folders = [checkpoint.folder("whisper"), checkpoint.folder("svd")]
    files = [*checkpoint.files.values(), *(file for folder in folders for file in [folder, *sorted(folder.rglob("*"))])]
    for file in [*files, checkpoint.files["unet"].parent / STUDENT_FILE]:
        if file.is_file():
            status = file.stat()
            yield f"{file.name} {status.st_size} {status.st_mtime_ns}"


def begin_all(runs, resume, say):
    """`begin` for the runs of all seeds, whose states of seeds that are still to come are missed without a word."""
    kept = any(run.path.exists() for run in runs)
    return [
        begin(run, resume, say if run.path.exists() or (not kept and run is runs[0]) else lambda text: None)
        for run in runs
    ]


def rescue(runs) -> str:
    """Keep what is done of all runs, and say how to resume; "" when nothing is done."""
    return next(filter(None, [run.rescue() for run in reversed(runs)]), "")


def begin(run, resume, say):
    """The steps that an interrupted run had done, and its latents, if it is to resume; what is done, in one line."""
    run.require_names()
    if resume:
        start = run.load()
        if start is None:
            say(f"Note: there is no interrupted run at {run.path}, so this one starts at the beginning.")
            run.require_space()
        else:
            say(f"Resuming after step {run.done} of {run.steps}.")
        return start
    left = run.left_behind()
    if left == 0:
        say(f"Note: {run.path} is a damaged state of an interrupted run, and is replaced.")
    elif left is not None:
        say(
            f"Note: {run.path} holds {left} steps of an interrupted run; this one starts again, and keeps them as "
            f"{run.aside.name} until it is finished. To resume that one, stop now and add --resume."
        )
    run.require_space()
    return None


def load_pipeline(checkpoint, dtype, device, kind=None):
    """The `DiceTalkPipeline` of a checkpoint, on its device; `kind` is a class that is derived from it."""
    from transformers.utils import logging

    from .pipeline import DiceTalkPipeline

    logging.disable_progress_bar()  # one that flashes by for each of the parts
    return (kind or DiceTalkPipeline).from_checkpoint(checkpoint, torch_dtype=dtype).to(device)


def sample_best(job, pipeline, inputs, runs, starts) -> Sampled:
    """Sample every seed of a job, and keep the one in which the network reads best what was asked; the first of equals.

    Args:
        runs, starts: of `kept_runs` and `begin_all`.
    """
    from .sampling.meter import as_asked, asked_shares

    meter, best, scores = inputs.meter, None, {}
    for one, run, start in zip(job.seeds(), runs, starts, strict=True):
        latents = sample_latents(one, pipeline, inputs, run, start)
        if meter is None:
            return Sampled(latents, one.seed)
        asked = asked_shares(inputs.emotion, inputs.priors, len(latents))
        scores[one.seed] = as_asked(meter.shares, asked)
        if best is None or scores[one.seed] > scores[best.seed]:
            best = Sampled(latents, one.seed, meter.shares, asked, scores)
    assert best is not None  # a job has a seed or more
    return best


def sample_latents(job, pipeline, inputs, run, start=None):
    """The sampled latents, one a frame at 12.5 fps; `start` is what `begin` returns."""
    import torch

    from .model.audio import num_frames
    from .sampling.noise import published_noise
    from .sampling.processes import process
    from .sampling.windows import WINDOW

    job, first = as_sampled(job, inputs.checkpoint), process()[0] == 0
    if run.finished and inputs.meter is None:
        return start[1] if job.clamp_windows else start[1][:-WINDOW]

    def keep(pipeline, step, timestep, inputs):
        if first:
            run.step(step + 1, inputs["latents"], inputs["carried"])
        return {}

    noise: dict[str, Any] = {"generator": torch.Generator("cpu").manual_seed(job.seed)}
    if job.noise == "published" and start is None:
        shape = num_frames(len(inputs.sound.speech)) + WINDOW, *run.shape[1:]
        noise["noise"] = published_noise(shape, device=inputs.device)
    pipeline.set_progress_bar_config(desc="Sampling", unit="window", disable=None if first else True)
    return pipeline(
        portrait=inputs.portrait,
        audio=inputs.sound.speech,
        emotion=inputs.emotion,
        num_inference_steps=job.steps,
        reference_scale=job.reference_scale,
        emotion_scale=job.emotion_scale,
        guidance_interval=job.guidance_interval,
        **noise,
        output_type="latent",
        callback_on_step_end=keep,
        callback_on_step_end_tensor_inputs=("latents", "carried"),
        start=start,
        smaller_windows=job.smaller_windows,
        speech_strength=job.speech_strength,
        emotion_strength=job.emotion_strength,
        denoise=job.strength,
        sampler=job.sampler,
        schedule=job.schedule,
        guidance_reuse=job.guidance_reuse,
        deep_cache=job.deep_cache,
        clamp_windows=job.clamp_windows,
        meter=inputs.meter,
    ).frames


def write(job, pipeline, sampled, metadata, inputs, watch=None):
    """Decode and write the video piece by piece, and the meter's chart; returns how many frames it has.

    Args:
        watch: called with the frames and their number, gives the same frames; a progress bar when None.
    """
    from contextlib import closing
    from fractions import Fraction

    from .media.pixels import at_resolution
    from .media.stream import video_frames
    from .media.video import write_video
    from .script.subtitles import cues_of, write_srt

    latents, double = sampled.latents, job.fps == "25"
    total = 2 * len(latents) if double else len(latents)
    comment = f"Made with DICE-Talk: {metadata['emotion']}, seed {sampled.seed}"
    if sampled.scores:
        scores = {str(seed): round(score, 4) for seed, score in sampled.scores.items()}
        metadata = metadata | {"kept_seed": sampled.seed, "as_asked": scores}
    metadata = {"comment": comment, "dicetalk": metadata}
    sample_rate, blocks = inputs.sound.for_video()
    with closing(video_frames(pipeline.decode_by_all(latents, job.decode_chunk_size), double)) as frames:
        shown = (watch or _writing_bar)(frames, total)
        if job.keep_resolution:
            shown = at_resolution(shown, video_size(job, inputs.portrait))
        cues = cues_of(inputs.words) if job.subtitles else []
        count = write_video(job.output, shown, Fraction(job.fps), blocks, sample_rate, metadata, subtitles=cues)
    if job.subtitles:
        write_srt(job.srt, cues)
    if job.meter:
        from .media.image import save_png
        from .reading.chart import meter_chart

        save_png(meter_chart(sampled.read, sampled.asked, Path(job.output).name), job.meter_file)
    return count


def video_size(job: Job, portrait) -> tuple[int, int]:
    """Width and height of the video in pixels, which are even."""
    if not job.keep_resolution:
        return portrait.image.size
    x1, y1, x2, y2 = portrait.crop_box
    return max(2, (x2 - x1) // 2 * 2), max(2, (y2 - y1) // 2 * 2)


def checkpoint_name(checkpoint) -> str:
    """The name of a checkpoint as a video keeps it, without the folder that distinguishes two of one name."""
    return checkpoint.name.removesuffix(f" ({checkpoint.root})")


def video_metadata(job: Job, inputs: Inputs) -> dict[str, Any]:
    """Everything that a video is made from and with; files by name, not by folder."""
    from . import __version__

    checkpoint, portrait = inputs.checkpoint, inputs.portrait
    sampled, student = as_sampled(job, checkpoint), checkpoint.student
    return (
        sampled.settings()
        | {
            "speed": sampled.speed,
            "version": __version__,
            "checkpoint": checkpoint_name(checkpoint),
            "untrained": checkpoint.untrained,
            "face": list(portrait.face_box),
            "crop_box": list(portrait.crop_box),
            "device": str(inputs.device),
            "dtype": str(inputs.dtype).removeprefix("torch."),
            "digest": job.digest(),
        }
        | ({} if student is None else {"student": asdict(student)})
    )


@contextmanager
def reading_bar():
    """A progress bar for the reading of a clip; gives what `ClipOptions.read_clip` takes as `on_progress`."""
    from tqdm import tqdm

    with tqdm(desc="Reading the clip", unit="s", disable=None, bar_format="{l_bar}{bar}| {elapsed}<{remaining}") as bar:

        def on_progress(done, total):
            bar.total = total
            bar.update(done - bar.n)

        yield on_progress


def _writing_bar(frames, total):
    from tqdm import tqdm

    return tqdm(frames, desc="Decoding and writing", total=total, unit="frame", disable=None)


def _print(text):
    print(text, flush=True)


def _print_error(text):
    print(text, file=sys.stderr, flush=True)
