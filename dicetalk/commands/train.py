"""Train DICE-Talk on clips that `prepare` wrote, from a checkpoint or from nothing.

What comes out is a checkpoint folder in the published layout: OUTPUT/DICE-Talk/unet.pth and the others, with the VAE,
the CLIP tower, Whisper and the emotion priors of --checkpoint beside them. The same command runs in many processes:
accelerate launch -m dicetalk train DATA … DATA and OUTPUT must then be in folders that all of them share."""

import os

HELP = "train the UNet, its adapters, and the emotion model"

EXAMPLES = (
    (
        "adapters, audio projection, pose guider and emotion model of the first checkpoint found",
        "features --output mine",
    ),
    ("a LoRA of rank 32, and more after an interruption", "features --output mine --trains lora --rank 32 --resume"),
)

STATE_FILE = "training.safetensors"

OPTIONS = (
    ("steps", int, "steps of the optimizer"),
    ("batch", int, "clips per step, over all processes"),
    ("accumulate", int, "parts in which a process computes its share of a step, for less memory"),
    ("frames", int, "frames of a clip in a step; 25 is the window of sampling"),
    ("rate", float, "learning rate of AdamW"),
    ("warm_up", int, "first steps, over which the learning rate rises"),
    ("cool_down", int, "last steps, over which it falls to nothing"),
    ("decay", float, "weight decay"),
    ("clip", float, "largest norm of the gradient"),
    ("sigma_mean", float, "mean of the logarithm of the noise level"),
    ("sigma_deviation", float, "its standard deviation"),
    ("discrimination", float, "weight of the emotion discrimination; 0 leaves it out"),
    ("quantization", float, "weight of the vector-quantization loss"),
    ("reference", float, "share of emotions from other people's clips (prepare --embedder), the rest from priors"),
    ("prior_deviation", float, "standard deviation of an emotion around its prior"),
    ("drop_all", float, "share of clips trained without portrait, speech and emotion (U of guidance)"),
    ("drop_driving", float, "share of clips trained without speech and emotion (R of guidance)"),
    ("ema", float, "decay of the moving average of the weights, which is saved; 0 keeps none"),
    ("rank", int, "of the LoRA"),
    ("seed", int, "of everything that is random"),
)
_MAY_BE_0 = (
    *("decay", "discrimination", "quantization", "reference", "prior_deviation", "drop_all", "drop_driving"),
    *("ema", "seed", "warm_up", "cool_down", "sigma_deviation"),
)
_SHARES = ("reference", "drop_all", "drop_driving")


def add_arguments(parser):
    from ..training.options import BANKS, PORTRAITS, WHAT_TRAINS, TrainingOptions

    parser.add_argument("data", metavar="DATA", help="the folder of shards that `prepare` wrote")
    parser.add_argument("--output", required=True, metavar="DIR", help="the checkpoint folder to write")
    parser.add_argument(
        "--checkpoint",
        metavar="DIR",
        help="checkpoint to start from, and whose VAE, CLIP tower, Whisper and priors go with the result "
        "(default: the first that is found)",
    )
    parser.add_argument(
        "--new",
        metavar="JSON",
        help="start with random weights: a file with the sizes of unet, pose_guider, audio_linear and emo_model",
    )
    parser.add_argument(
        "--svd",
        metavar="DIR",
        help="start with Stable Video Diffusion's UNet (diffusers' layout, unet/ in it), all else with random weights",
    )
    parser.add_argument("--emotions", metavar="DIR", help="folder of the emotion priors, instead of the checkpoint's")
    parser.add_argument(
        "--trains",
        choices=WHAT_TRAINS,
        default=TrainingOptions.trains,
        help="adapters, with audio projection, pose guider and emotion model (default); lora: a LoRA on the UNet alone "
        "(needs peft); all: everything",
    )
    parser.add_argument(
        "--bank",
        choices=BANKS,
        default=TrainingOptions.bank,
        help="keys and values of the nearest code, by which alone codes learn (default), of the whole bank, or half of "
        "the clips each way",
    )
    parser.add_argument(
        "--portraits",
        choices=PORTRAITS,
        default=TrainingOptions.portraits,
        help="a clip's portrait is a frame of itself (default), or of any clip of the same person, which does not "
        "show the emotion",
    )
    parser.add_argument(
        "--intensities",
        type=float,
        nargs=3,
        default=TrainingOptions.intensities,
        metavar="N",
        help="of levels 1 to 3: how far from neutral's prior to their own their emotions are drawn (default: 1 1 1)",
    )
    parser.add_argument(
        "--discrimination-noise",
        choices=("weighted", "all", "low"),
        default=TrainingOptions.discrimination_noise,
        help="how the discrimination counts over noise levels: as the share of signal (default), equally, or below 1",
    )
    parser.add_argument("--checkpointing", action="store_true", help="less memory for a third more time")
    parser.add_argument("--split", default="train", help="which of DATA's clips (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="resume an ended run, to the same result")
    parser.add_argument(
        "--save-every", type=int, default=500, metavar="STEPS", help="how often the state is kept (default: 500)"
    )
    parser.add_argument("--device", help="cpu, or what accelerate chooses when this is not given")
    parser.add_argument(
        "--mixed-precision",
        choices=("no", "bf16"),
        help="precision of the computation (default: as accelerate is configured, else no)",
    )
    for name, kind, text in OPTIONS:
        default = getattr(TrainingOptions, name)
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            default=default,
            metavar="N",
            help=f"{text} (default: {default:g})",
        )


def run(args):
    """Train, and write the checkpoint and the report. Returns 0."""
    from ..errors import InputError

    options = _options(args)
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
        return _train(args, options, accelerator)
    except OSError as error:
        place = error.filename or args.output
        raise InputError(f"{place}: cannot be read or written ({error.strerror or error}).") from error
    finally:
        accelerator.end_training()


def _options(args):
    from ..errors import InputError
    from ..training.options import TrainingOptions

    for name, _, _ in OPTIONS:
        value, option = getattr(args, name), f"--{name.replace('_', '-')}"
        if name != "sigma_mean" and not (0 < value < float("inf") or (value == 0 and name in _MAY_BE_0)):
            raise InputError(
                f"{option} {value:g}: give a {'number of 0 or more' if name in _MAY_BE_0 else 'positive number'}."
            )
        if name in _SHARES and value > 1:
            raise InputError(f"{option} {value:g}: give a share of at most 1.")
    if args.drop_all + args.drop_driving > 1:
        raise InputError("--drop-all and --drop-driving together must be at most 1.")
    if not 0 <= args.ema < 1:
        raise InputError(f"--ema {args.ema:g}: give 0, or a decay below 1.")
    if not all(0 <= each <= 3 for each in args.intensities):
        raise InputError("--intensities: give three numbers from 0 to 3.")
    if args.save_every < 1:
        raise InputError(f"--save-every {args.save_every}: give 1 or more.")
    if args.device not in (None, "cpu"):
        raise InputError(
            f"--device {args.device}: give cpu or nothing; accelerate chooses among GPUs (CUDA_VISIBLE_DEVICES)."
        )
    given = {name: getattr(args, name) for name, _, _ in OPTIONS}
    return TrainingOptions(
        trains=args.trains,
        bank=args.bank,
        portraits=args.portraits,
        intensities=tuple(args.intensities),
        discrimination_noise=args.discrimination_noise,
        checkpointing=args.checkpointing,
        **given,
    )


def _train(args, options, accelerator):
    from pathlib import Path

    from tqdm import tqdm

    from ..checkpoints.finding import resolve_checkpoint
    from ..embedder.processes import together
    from ..training.dataset import PreparedClips
    from ..training.loop import train
    from ..training.parts import build_objective, check_parts, save_parts, start_from_emotions
    from ..training.report import write_report

    output = Path(args.output).absolute()

    def start():
        clips = PreparedClips(args.data, options.frames, args.split)
        checkpoint = resolve_checkpoint(args.checkpoint)
        _check_output(output, checkpoint)
        parts, priors = _parts(args, options, checkpoint), _priors(args, checkpoint)
        check_parts(parts)
        _check_clips(clips, parts, args)
        if (args.new or args.svd) and len(priors) > 1:
            start_from_emotions(parts["emo_model"], priors, options.seed)
        return clips, checkpoint, priors, build_objective(parts, options)

    clips, checkpoint, priors, objective = together(start)
    state = output / STATE_FILE
    main = accelerator.is_main_process
    learning = sum(each.numel() for each in objective.parameters() if each.requires_grad)
    if main:
        _put_earlier_aside(state, args.resume)
        short = f", {clips.short} too short" if clips.short else ""
        print(f"{len(clips)} clips{short}; {learning:,} weights learn", flush=True)
    with tqdm(total=options.steps, desc="training", unit="step", disable=None if main else True) as bar:

        def on_step(done, total, losses):
            bar.set_postfix(denoising=f"{losses[1]:.3f}", refresh=False)
            bar.update(done - bar.n)

        history = train(objective, clips, priors, accelerator, state, args.save_every, args.resume, on_step)
    if main:
        _copy_companions(checkpoint, output)
        files = save_parts(objective, output)
        write_report(output / "report", history, _facts(args, options, clips, checkpoint, learning, accelerator))
        for path in files:
            print(f"Wrote {path}")
        print(f"The report: {output / 'report' / 'report.md'}")
    accelerator.wait_for_everyone()
    return 0


def _parts(args, options, checkpoint):
    from ..training.parts import load_parts, load_svd_unet, new_parts, read_config

    if not args.new and not args.svd:
        return load_parts(checkpoint)
    unet = load_svd_unet(args.svd) if args.svd else None
    return new_parts(read_config(args.new) if args.new else {}, options.seed, unet)


def _check_output(output, checkpoint):
    from ..errors import InputError

    if output == checkpoint.root.absolute():
        raise InputError(f"--output {output} is the checkpoint to start from: name another folder.")


def _check_clips(clips, parts, args):
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


def _start(args, checkpoint):
    names = [os.path.basename(str(path).rstrip("/")) for path in (args.svd, args.new) if path]
    return f"random weights, {', '.join(names)}" if names else f"checkpoint {checkpoint.root.name}"


def _facts(args, options, clips, checkpoint, learning, accelerator):
    import dataclasses

    import torch

    from .. import __version__

    return {
        "clips": f"{len(clips)} of the split {args.split}, fingerprint {clips.fingerprint()}",
        "start": _start(args, checkpoint),
        "weights that learn": f"{learning:,}",
        "training": ", ".join(f"{name} {value}" for name, value in dataclasses.asdict(options).items()),
        "processes": accelerator.num_processes,
        "precision": accelerator.mixed_precision,
        "versions": f"dicetalk {__version__}, PyTorch {torch.__version__}",
    }
