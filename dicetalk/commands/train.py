"""Train DICE-Talk on clips that `prepare` wrote, from a checkpoint or from nothing.

What comes out is a checkpoint folder in the published layout: OUTPUT/DICE-Talk/unet.pth and the others, with the VAE,
the CLIP tower, Whisper and the emotion priors of --checkpoint beside them. The same command runs in many processes:
accelerate launch -m dicetalk train DATA … DATA and OUTPUT must then be in folders that all of them share."""

import os

from .training_run import (
    MAY_BE_0,
    RESULT_NUMBERS,
    STEP_NUMBERS,
    accelerated,
    add_numbers,
    add_run_arguments,
    check_clips,
    check_run,
    require_no_student,
    run_training,
)

HELP = "train the UNet, its adapters, and the emotion model"

EXAMPLES = (
    (
        "adapters, audio projection, pose guider and emotion model of the first checkpoint found",
        "features --output mine",
    ),
    ("a LoRA of rank 32, and more after an interruption", "features --output mine --trains lora --rank 32 --resume"),
)

OPTIONS = (
    *STEP_NUMBERS,
    ("sigma_mean", float, "mean of the logarithm of the noise level"),
    ("sigma_deviation", float, "its standard deviation"),
    ("discrimination", float, "weight of the emotion discrimination; 0 leaves it out"),
    ("quantization", float, "weight of the vector-quantization loss"),
    ("reference", float, "share of emotions from other people's clips (prepare --embedder), the rest from priors"),
    ("prior_deviation", float, "standard deviation of an emotion around its prior"),
    ("drop_all", float, "share of clips trained without portrait, speech and emotion (U of guidance)"),
    ("drop_driving", float, "share of clips trained without speech and emotion (R of guidance)"),
    *RESULT_NUMBERS,
)
_MAY_BE_0 = (
    *MAY_BE_0,
    *("sigma_deviation", "discrimination", "quantization", "reference", "prior_deviation", "drop_all", "drop_driving"),
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
    add_run_arguments(parser)
    add_numbers(parser, OPTIONS, TrainingOptions)


def run(args):
    """Train, and write the checkpoint and the report. Returns 0."""
    options = _options(args)
    return accelerated(args, lambda accelerator: _train(args, options, accelerator))


def _options(args):
    from ..errors import InputError
    from ..training.options import TrainingOptions

    check_run(args, OPTIONS, _MAY_BE_0, _SHARES, may_be_any=("sigma_mean",))
    if args.drop_all + args.drop_driving > 1:
        raise InputError("--drop-all and --drop-driving together must be at most 1.")
    if not all(0 <= each <= 3 for each in args.intensities):
        raise InputError("--intensities: give three numbers from 0 to 3.")
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
    from ..training.parts import build_objective, check_parts, start_from_emotions

    def build(clips, checkpoint, priors):
        if not args.new and not args.svd:
            require_no_student(checkpoint)
        parts = _parts(args, options, checkpoint)
        check_parts(parts)
        check_clips(clips, parts, args)
        if (args.new or args.svd) and len(priors) > 1:
            start_from_emotions(parts["emo_model"], priors, options.seed)
        return build_objective(parts, options)

    return run_training(args, accelerator, build, lambda checkpoint: _start(args, checkpoint))


def _parts(args, options, checkpoint):
    from ..training.parts import load_parts, load_svd_unet, new_parts, read_config

    if not args.new and not args.svd:
        return load_parts(checkpoint)
    unet = load_svd_unet(args.svd) if args.svd else None
    return new_parts(read_config(args.new) if args.new else {}, options.seed, unet)


def _start(args, checkpoint):
    names = [os.path.basename(str(path).rstrip("/")) for path in (args.svd, args.new) if path]
    return f"random weights, {', '.join(names)}" if names else f"checkpoint {checkpoint.root.name}"
