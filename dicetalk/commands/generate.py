"""Make a talking video from a portrait, speech and an emotion."""

import math
import sys
from pathlib import Path

from ..emotion.options import LONGEST
from ..errors import InputError
from .clips import add_clip_arguments, check_clip, check_no_clip, clip_path, clip_settings, read_clip

HELP = "make a talking video from a portrait, speech and an emotion"

DEFAULTS = {"seed": 0, "steps": 25, "reference_scale": 3.0, "emotion_scale": 6.0, "size": 512, "margin": 0.5}
LARGEST_SIZE = 2048
LARGEST_SCALE = 20


def add_arguments(parser):
    add = parser.add_argument
    add("--portrait", required=True, metavar="FILE", help="image of one person, face to the camera")
    add("--audio", required=True, metavar="FILE", help="speech; also a video, whose sound is taken")
    add(
        "--emotion",
        default="neutral",
        metavar="TEXT",
        help="angry, contempt, disgusted, fear, happy, neutral, sad or surprised; happy:1.3 for more of it, happy:0.5 "
        'for less; a mix as "(sad 0.7 + fear 0.3)"; a course as "0s neutral; 1.5s happy smooth"; a saved one '
        "(.safetensors); or clip:FILE, read from a video, sound or picture (default: %(default)s)",
    )
    add("--output", required=True, metavar="FILE", help="the video to write, .mp4; an existing one is replaced")
    add("--checkpoint", metavar="DIR", help="folder of the weights, or its name (default: the first one found)")
    add("--start", type=float, default=0.0, metavar="S", help="where the speech starts, in seconds (default: 0)")
    add("--length", type=float, metavar="S", help="length of the speech, in seconds (default: to the end)")
    add("--fps", choices=("12.5", "25"), default="25", help="25 doubles the model's 12.5 (default: %(default)s)")
    add("--size", type=int, default=DEFAULTS["size"], help="short side of the video in pixels (default: %(default)s)")
    add("--crop", action="store_true", help="cut the portrait to a square around the face")
    add(
        "--margin",
        type=float,
        default=DEFAULTS["margin"],
        help="with --crop: what is kept around the face, as a share of its size (default: %(default)s)",
    )
    add("--face", metavar="X1,Y1,X2,Y2", help="the face, hairline to chin, in pixels (default: it is looked for)")
    add("--seed", type=int, default=DEFAULTS["seed"], help="another seed, another video (default: %(default)s)")
    add("--steps", type=int, default=DEFAULTS["steps"], help="sampling steps (default: %(default)s)")
    add(
        "--reference-scale",
        type=float,
        default=DEFAULTS["reference_scale"],
        help="how closely the video keeps to the portrait (default: %(default)s)",
    )
    add(
        "--emotion-scale",
        type=float,
        default=DEFAULTS["emotion_scale"],
        help="how strongly speech and emotion move it (default: %(default)s)",
    )
    add(
        "--decode-chunk-size",
        type=int,
        default=10,
        metavar="N",
        help="frames decoded at once, besides 4 or more to either side for context (default: %(default)s)",
    )
    add(
        "--resume",
        action="store_true",
        help="go on with a run that was interrupted, from its last kept step; without one, start at the beginning",
    )
    add(
        "--smaller-windows",
        action="store_true",
        help="if memory does not suffice for windows of 25 frames, use shorter ones, which changes the result",
    )
    add("--device", help="cpu, cuda, cuda:1, mps … (default: cuda if there is one, else cpu)")
    add("--dtype", choices=("float32", "float16", "bfloat16"), help="default: float16 on cuda, else float32")
    add_clip_arguments(parser, "with --emotion clip:FILE")


def run(args):
    """Check everything that can be checked without the weights, then load them, sample, decode and write."""
    check_numbers(args)
    face_box = parse_face(args.face)
    check_files(args)

    from ..emotion.text import read_argument

    clip = clip_path(args.emotion)
    if clip is not None:
        clip = check_clip(clip, args)
    else:
        check_no_clip(args)
        read_argument(args.emotion)  # a slip in the text is told at once; the names in it, when the checkpoint is known

    from ..media.audio import load_audio
    from ..media.image import load_image
    from ..model.audio import num_frames

    image = load_image(args.portrait)
    audio = load_audio(args.audio, args.start, args.length)
    if num_frames(len(audio)) == 0:
        raise InputError(f"The speech in {args.audio} lasts {len(audio) / 16:.0f} ms: one video frame takes 80 ms.")

    from ..checkpoints.finding import resolve_checkpoint
    from ..checkpoints.priors import load_priors
    from ..emotion.parsing import resolve
    from .device import choose_device, choose_dtype

    device = choose_device(args.device)
    dtype = choose_dtype(args.dtype, device)
    checkpoint = resolve_checkpoint(args.checkpoint)
    priors = load_priors(checkpoint.folder("emotions"))
    if clip is not None:
        reading = read_clip(clip, args, checkpoint, priors)
        print(reading.text(), flush=True)
        emotion = reading.emotion
    else:
        emotion = resolve(read_argument(args.emotion, priors), priors, args.emotion)

    from ..media.portrait import prepare_portrait

    portrait = prepare_portrait(image, face_box, short_side=args.size, crop=args.crop, expand_ratio=args.margin)
    if checkpoint.untrained:
        print(f"Note: the checkpoint {checkpoint.name} is untrained, so the picture will be noise.", flush=True)

    metadata = settings(args, checkpoint, portrait, device, dtype)
    run = kept_run(args, image, portrait, audio, emotion, checkpoint, metadata)
    start = begin(args, run)

    from ..sampling.finite import NotFinite

    pipeline = load_pipeline(checkpoint, dtype, device)
    try:
        latents = sample_latents(args, pipeline, portrait, audio, emotion, run, start)
        count = write(args, pipeline, latents, metadata)
    except BaseException as error:  # whatever ended the run, its finished steps are not lost
        hint = "" if isinstance(error, NotFinite) else run.rescue()
        if hint and isinstance(error, (InputError, KeyboardInterrupt)):
            raise type(error)(f"{error} {hint}".strip()) from error
        if hint:
            print(f"dicetalk generate: {hint}", file=sys.stderr)
        raise
    run.remove()
    width, height = portrait.image.size
    print(f"{args.output}: {count} frames, {count / float(args.fps):.2f} s at {args.fps} fps, {width}×{height} pixels")
    return 0


def kept_run(args, image, portrait, audio, emotion, checkpoint, metadata):
    """The run's state, which is kept beside the output; what it depends on is named as the user gave it."""
    import diffusers
    import numpy as np
    import torch

    from ..model.audio import num_frames
    from ..model.settings import LATENT_CHANNELS
    from ..sampling.resume import Run, digest
    from ..sampling.windows import WINDOW

    width, height = portrait.image.size
    settings = {
        "--portrait": digest(np.asarray(image)),
        "--audio, --start or --length": digest(np.asarray(audio)),
        "--emotion": digest(emotion.digest()),
        "--checkpoint": digest(*checkpoint_stamp(checkpoint)),
        "face (--face)": list(portrait.face_box),
        "part of the portrait (--crop, --margin)": list(portrait.crop_box),
        **{f"--{name}": getattr(args, name) for name in ("size", "steps", "seed")},
        "--reference-scale": args.reference_scale,
        "--emotion-scale": args.emotion_scale,
    }
    computing = {
        "--device": metadata["device"],
        "--dtype": metadata["dtype"],
        "--smaller-windows": args.smaller_windows,
        "dicetalk": metadata["version"],
        "PyTorch": torch.__version__,
        "diffusers": diffusers.__version__,
    }
    shape = num_frames(len(audio)) + WINDOW, LATENT_CHANNELS, height // 8, width // 8
    return Run(args.output, settings, computing, args.steps, shape)


def checkpoint_stamp(checkpoint):
    """Name, size and time of every file that has a part in sampling: reading gigabytes to compare would take longer."""
    folders = [checkpoint.folder("whisper"), checkpoint.folder("svd")]
    files = [*checkpoint.files.values(), *(file for folder in folders for file in sorted(folder.rglob("*")))]
    for file in files:
        if file.is_file():
            status = file.stat()
            yield f"{file.name} {status.st_size} {status.st_mtime_ns}"


def begin(args, run):
    """The steps that an interrupted run had done, and its latents, if it is to go on; what is done, in one line."""
    run.require_names()
    if args.resume:
        start = run.load()
        if start is None:
            print(f"Note: there is no interrupted run at {run.path}, so this one starts at the beginning.", flush=True)
            run.require_space()
        else:
            print(f"Going on after step {run.done} of {run.steps}.", flush=True)
        return start
    left = run.left_behind()
    if left == 0:
        print(f"Note: {run.path} is a damaged state of an interrupted run, and is replaced.", flush=True)
    elif left is not None:
        print(
            f"Note: {run.path} holds {left} steps of an interrupted run; this one starts anew, and puts them aside as "
            f"{run.aside.name} until it is finished. To go on with that one, stop now and add --resume.",
            flush=True,
        )
    run.require_space()
    return None


def load_pipeline(checkpoint, dtype, device):
    from transformers.utils import logging

    from ..pipeline import DiceTalkPipeline

    logging.disable_progress_bar()  # one that flashes by for each of the parts
    return DiceTalkPipeline.from_checkpoint(checkpoint, torch_dtype=dtype).to(device)


def sample_latents(args, pipeline, portrait, audio, emotion, run, start=None):
    """The sampled latents, one a frame at 12.5 fps; `start` is what `begin` returns."""
    import torch

    from ..sampling.windows import WINDOW

    if run.finished:
        return start[1][:-WINDOW]

    def keep(pipeline, step, timestep, inputs):
        run.step(step + 1, inputs["latents"])
        return {}

    pipeline.set_progress_bar_config(desc="Sampling", unit="window", disable=None)
    return pipeline(
        portrait=portrait,
        audio=audio,
        emotion=emotion,
        num_inference_steps=args.steps,
        reference_scale=args.reference_scale,
        emotion_scale=args.emotion_scale,
        generator=torch.Generator("cpu").manual_seed(args.seed),
        output_type="latent",
        callback_on_step_end=keep,
        start=start,
        smaller_windows=args.smaller_windows,
    ).frames


def write(args, pipeline, latents, metadata):
    """Decode and write the video piece by piece, with a progress bar; returns how many frames it has."""
    from fractions import Fraction

    from tqdm import tqdm

    from ..media.audio import read_sound
    from ..media.frame_rate import double_frame_rate
    from ..media.video import write_video

    chunks = pipeline.decode(latents, args.decode_chunk_size)
    frames, total = (frame for chunk in chunks for frame in chunk.permute(0, 2, 3, 1).numpy()), len(latents)
    if args.fps == "25":
        frames, total = double_frame_rate(frames), 2 * total - 1
    frames = tqdm(frames, desc="Decoding and writing", total=total, unit="frame", disable=None)
    comment = f"Made with DICE-Talk: {metadata['emotion']}, seed {args.seed}"
    metadata = {"comment": comment, "dicetalk": metadata}
    sample_rate, sound = read_sound(args.audio, args.start)
    return write_video(args.output, frames, Fraction(args.fps), sound, sample_rate, metadata)


def settings(args, checkpoint, portrait, device, dtype):
    """Everything that the video was made from and with; files by name, not by folder."""
    from .. import __version__

    values = {name: value for name, value in clip_settings(args).items() if name not in ("command", "resume")}
    values |= {name: Path(values[name]).name for name in ("portrait", "audio", "output")}
    return values | {
        "version": __version__,
        "checkpoint": checkpoint.name.removesuffix(f" ({checkpoint.root})"),  # which tells two of one name apart
        "untrained": checkpoint.untrained,
        "face": list(portrait.face_box),
        "crop_box": list(portrait.crop_box),
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
    }


def check_numbers(args):
    """Refuse numbers that cannot be meant, before anything is loaded."""

    def require(ok, flag, value, wanted):
        if not ok:
            raise InputError(f"{flag} is {value}: give {wanted}.")

    require(0 <= args.seed < 2**63, "--seed", args.seed, "a whole number from 0 to 2^63 - 1")
    require(1 <= args.steps <= 1000, "--steps", args.steps, "a whole number from 1 to 1000; 25 is usual")
    require(64 <= args.size <= LARGEST_SIZE, "--size", args.size, f"64 to {LARGEST_SIZE} pixels; 512 is usual")
    require(args.decode_chunk_size >= 1, "--decode-chunk-size", args.decode_chunk_size, "1 or more frames")
    for flag, value in (("--reference-scale", args.reference_scale), ("--emotion-scale", args.emotion_scale)):
        require(0 <= value <= LARGEST_SCALE, flag, value, f"a number from 0 to {LARGEST_SCALE}")
    require(math.isfinite(args.margin) and args.margin >= 0, "--margin", args.margin, "0 or a positive number")
    require(0 <= args.start <= LONGEST, "--start", args.start, f"0 to {LONGEST:g} seconds")
    if args.length is not None:
        require(0 < args.length <= LONGEST, "--length", args.length, f"more than 0 and at most {LONGEST:g} seconds")


def parse_face(text):
    """ "x1,y1,x2,y2" as four floats, None for None."""
    if text is None:
        return None
    try:
        box = tuple(float(part) for part in text.split(","))
    except ValueError:
        box = ()
    if len(box) != 4 or not all(map(math.isfinite, box)):
        raise InputError(f"--face is {text}: give four numbers in pixels, x1,y1,x2,y2, for instance 180,60,320,250.")
    return box


def check_files(args):
    """Refuse input files that are not there, and an output that is no MP4, cannot be written, or is one of them."""
    given_files = [("--portrait", args.portrait), ("--audio", args.audio)]
    if clip_path(args.emotion) is not None:
        given_files.append(("--emotion", clip_path(args.emotion)))
    for flag, given in given_files:
        if not Path(given).exists():
            raise InputError(f"{flag} is {given}, which does not exist: check the file's name.")

    from ..media.container import check_writable
    from ..sampling.resume import SUFFIX

    output = Path(args.output)
    if output.suffix.lower() != ".mp4":
        raise InputError(f"--output is {output}: the video is an MP4 file, so give it a name that ends in .mp4.")
    check_writable(output, SUFFIX)
    for flag, given in given_files:
        if output.exists() and output.samefile(given):
            raise InputError(f"--output is the file that {flag} reads, {given}: write to another one.")
