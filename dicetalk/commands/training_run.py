"""What `train` and `distill` share: their options, the run, and what is written at its end."""

import os

STATE_FILE = "training.safetensors"
# (name, type, help), as `add_numbers` takes them.
STEP_NUMBERS = (
    ("steps", int, "steps of the optimizer"),
    ("batch", int, "clips per step, over all processes"),
    ("accumulate", int, "parts in which a process computes its share of a step, for less memory"),
    ("frames", int, "frames of a clip in a step; 25 is the window of sampling"),
    ("rate", float, "learning rate of AdamW"),
    ("warm_up", int, "first steps, over which the learning rate rises"),
    ("cool_down", int, "last steps, over which it falls to nothing"),
    ("decay", float, "weight decay"),
    ("clip", float, "largest norm of the gradient"),
)
RESULT_NUMBERS = (
    ("ema", float, "decay of the moving average of the weights, which is saved; 0 keeps none"),
    ("rank", int, "of the LoRA"),
    ("seed", int, "of everything that is random"),
)
MAY_BE_0 = ("warm_up", "cool_down", "decay", "ema", "seed")  # of these


def add_run_arguments(parser):
    """The options of how a training runs, whatever it learns."""
    add = parser.add_argument
    add("--checkpointing", action="store_true", help="less memory for a third more time")
    add("--split", default="train", help="which of DATA's clips (default: %(default)s)")
    add("--resume", action="store_true", help="resume an ended run, to the same result")
    add("--save-every", type=int, default=500, metavar="STEPS", help="how often the state is kept (default: 500)")
    add("--device", help="cpu, or what accelerate chooses when this is not given")
    add(
        "--mixed-precision",
        choices=("no", "bf16"),
        help="precision of the computation (default: as accelerate is configured, else no)",
    )


def add_numbers(parser, numbers, options):
    """An option for each of (name, type, help); the defaults are those of the class `options`."""
    for name, kind, text in numbers:
        default = getattr(options, name)
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            default=default,
            metavar="N",
            help=f"{text} (default: {default:g})",
        )


def add_whole_numbers(parser, numbers, options):
    """The same for each of (name, help), whole numbers."""
    add_numbers(parser, [(name, int, text) for name, text in numbers], options)


def check_whole_numbers(args, numbers, may_be_0):
    """InputError for one of (name, help) below 1, or below 0 where its name is in `may_be_0`."""
    from ..errors import InputError

    for name, _ in numbers:
        value, least = getattr(args, name), 0 if name in may_be_0 else 1
        if value < least:
            raise InputError(f"--{name.replace('_', '-')} {value}: give {least} or more.")


def require_accelerate():
    """InputError where accelerate is not installed."""
    from ..errors import InputError

    try:
        import accelerate  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"Training needs a package that is not installed ({error}): `pip install accelerate`."
        ) from error


def check_run(args, numbers, may_be_0, shares=(), may_be_any=()):
    """InputError for a number, or another option of these, that cannot be meant.

    Args:
        numbers: as for `add_numbers`.
        may_be_0, shares, may_be_any: names of those that may be 0, may be at most 1, and may be any number.
    """
    from ..errors import InputError

    for name, _, _ in numbers:
        value, option = getattr(args, name), f"--{name.replace('_', '-')}"
        if name not in may_be_any and not (0 < value < float("inf") or (value == 0 and name in may_be_0)):
            raise InputError(
                f"{option} {value:g}: give a {'number of 0 or more' if name in may_be_0 else 'positive number'}."
            )
        if name in shares and value > 1:
            raise InputError(f"{option} {value:g}: give a share of at most 1.")
    if not 0 <= args.ema < 1:
        raise InputError(f"--ema {args.ema:g}: give 0, or a decay below 1.")
    if args.save_every < 1:
        raise InputError(f"--save-every {args.save_every}: give 1 or more.")
    if args.device not in (None, "cpu"):
        raise InputError(
            f"--device {args.device}: give cpu or nothing; accelerate chooses among GPUs (CUDA_VISIBLE_DEVICES)."
        )


def accelerated(args, work):
    """`work(accelerator)`, with what a system's error names; InputError where a package is missing."""
    from ..errors import InputError

    try:
        import accelerate
        import matplotlib  # noqa: F401  (of the report, which comes last)
    except ImportError as error:
        raise InputError(
            f"Training needs a package that is not installed ({error}): `pip install accelerate matplotlib`."
        ) from error
    accelerator = accelerate.Accelerator(cpu=args.device == "cpu", mixed_precision=args.mixed_precision)
    try:
        if accelerator.mixed_precision not in ("no", "bf16"):
            raise InputError(f"Training computes in float32 or bf16, not in {accelerator.mixed_precision}.")
        return work(accelerator)
    except OSError as error:
        place = error.filename or args.output
        raise InputError(f"{place}: cannot be read or written ({error.strerror or error}).") from error
    finally:
        accelerator.end_training()


def run_training(args, accelerator, build, came_from, mark=None):
    """Train, and write the checkpoint and the report. Returns 0.

    Args:
        args: of the command, with data, output, checkpoint, emotions, and those of `add_run_arguments`.
        build: called with the clips, the checkpoint and its priors; gives the objective.
        came_from: called with the checkpoint; text about where the weights come from.
        mark: called with the checkpoint and the folder of the weights once they are written; gives a further file.
    """
    from pathlib import Path

    from tqdm import tqdm

    from ..checkpoints.finding import WEIGHTS_FOLDER, resolve_checkpoint
    from ..embedder.processes import together
    from ..training.dataset import PreparedClips
    from ..training.loop import train
    from ..training.parts import save_parts
    from ..training.report import write_report

    output = Path(args.output).absolute()

    def start():
        clips = PreparedClips(args.data, args.frames, args.split)
        checkpoint = resolve_checkpoint(args.checkpoint)
        _check_output(output, checkpoint)
        priors = _priors(args, checkpoint)
        return clips, checkpoint, priors, build(clips, checkpoint, priors)

    clips, checkpoint, priors, objective = together(start)
    state, steps = output / STATE_FILE, objective.options.steps
    main = accelerator.is_main_process
    learning = sum(each.numel() for each in objective.parameters() if each.requires_grad)
    if main:
        _put_earlier_aside(state, args.resume)
        short = f", {clips.short} too short" if clips.short else ""
        print(f"{len(clips)} clips{short}; {learning:,} weights learn", flush=True)
    with tqdm(total=steps, desc="training", unit="step", disable=None if main else True) as bar:

        def on_step(done, total, losses):
            bar.set_postfix({objective.losses[1]: f"{losses[1]:.3f}"}, refresh=False)
            bar.update(done - bar.n)

        history = train(objective, clips, priors, accelerator, state, args.save_every, args.resume, on_step)
    if main:
        _copy_companions(checkpoint, output)
        files = save_parts(objective, output)
        if mark is not None:
            files.append(mark(checkpoint, output / WEIGHTS_FOLDER))
        facts = _facts(args, objective.options, clips, came_from(checkpoint), learning, accelerator)
        write_report(output / "report", history, facts, objective.losses)
        for path in files:
            print(f"Wrote {path}")
        print(f"The report: {output / 'report' / 'report.md'}")
    accelerator.wait_for_everyone()
    return 0


def check_clips(clips, parts, args):
    """InputError unless the features are of the sizes that the parts take."""
    from ..errors import InputError

    found = clips.read(0, 0, 1, 0)
    audio, width = parts["audio_linear"], parts["unet"].config.cross_attention_dim
    if found["clip"].numel() != width:
        raise InputError(
            f"{args.data} holds image embeddings of {found['clip'].numel()} numbers, and the UNet takes {width}: "
            "prepare with the CLIP tower that belongs to it."
        )
    if tuple(found["audio"].shape[1:]) != (audio.window, audio.layers, audio.width):
        raise InputError(
            f"{args.data} holds audio features of width {found['audio'].shape[-1]}, and audio_linear takes "
            f"{audio.width}: prepare with the Whisper model that belongs to it."
        )


def require_no_student(checkpoint):
    """InputError for a checkpoint that is a student."""
    from ..errors import InputError

    if checkpoint.student is not None:
        raise InputError(
            f"The checkpoint {checkpoint.root} is a student of `distill`, which no longer denoises step by step: "
            f"name the one that it was made from, {checkpoint.student.made_from}."
        )


def _check_output(output, checkpoint):
    from ..errors import InputError

    if output == checkpoint.root.absolute():
        raise InputError(f"--output {output} is the checkpoint to start from: name another folder.")


def _priors(args, checkpoint):
    from ..checkpoints.priors import load_priors
    from ..emotion.options import NAMES

    folder = args.emotions or checkpoint.folder("emotions")
    return {name: emotion.mean for name, emotion in load_priors(folder).items() if name in NAMES}


def _put_earlier_aside(state, resume):
    """A state that is not to be resumed is kept under another name, as hours may be in it."""
    if state.exists() and not resume:
        os.replace(state, f"{state}.old")
        print(
            f"Note: {state} is of an earlier training. This one starts from its beginning; that one is now {state}.old."
        )


def _copy_companions(checkpoint, output):
    from ..checkpoints.convert import companions, link_or_copy
    from ..checkpoints.finding import EMOTIONS_FOLDER

    for source, target in companions(checkpoint, output):
        link_or_copy(source, target)
    for path in sorted(checkpoint.emotions.iterdir()) if checkpoint.emotions else ():
        if path.suffix in (".npy", ".safetensors"):
            link_or_copy(path, output / EMOTIONS_FOLDER / path.name)


def _facts(args, options, clips, start, learning, accelerator):
    import dataclasses

    import torch

    from .. import __version__

    return {
        "clips": f"{len(clips)} of the split {args.split}, fingerprint {clips.fingerprint()}",
        "start": start,
        "weights that learn": f"{learning:,}",
        "training": ", ".join(f"{name} {value}" for name, value in dataclasses.asdict(options).items()),
        "processes": accelerator.num_processes,
        "precision": accelerator.mixed_precision,
        "versions": f"dicetalk {__version__}, PyTorch {torch.__version__}",
    }
