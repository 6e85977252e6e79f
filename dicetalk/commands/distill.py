"""Make a student of a checkpoint: the same network with other weights, which makes a video in 4 passes.

The published sampling is 25 steps of three branches of guidance, 75 passes through the network for every window. A
student needs no guidance and few steps. It learns from the checkpoint itself, on any clips that `prepare` wrote: with
labels or without, since their emotions are drawn. What comes out is a checkpoint folder in the published layout; the
nodes, `generate` and the library read in it how it is sampled."""

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

HELP = "make a student of a checkpoint, which needs 4 passes instead of 75"

EXAMPLES = (
    ("a student of the first checkpoint found, as a LoRA on its UNet", "features --output student"),
    (
        "one for 8 passes, of all weights, in less memory",
        "features --checkpoint mine --output student --passes 8 --trains all --rate 1e-5 --checkpointing",
    ),
    ("more steps after an interruption", "features --output student --steps 4000 --resume"),
)

OPTIONS = (
    *STEP_NUMBERS,
    ("reference_scale", float, "guidance that is put into the weights: how closely frames keep to the portrait"),
    ("emotion_scale", float, "guidance that is put into the weights: how far speech and emotion go"),
    ("weakest", float, "smallest intensity of the emotions that are drawn"),
    ("strongest", float, "largest intensity of the emotions that are drawn"),
    ("huber", float, "difference of latents below which the loss is squared, and above it absolute"),
    *RESULT_NUMBERS,
)
_MAY_BE_0 = (*MAY_BE_0, "reference_scale", "emotion_scale", "weakest", "strongest")


def add_arguments(parser):
    from ..training.options import PORTRAITS, WHAT_TRAINS, DistillationOptions

    parser.add_argument("data", metavar="DATA", help="the folder of shards that `prepare` wrote")
    parser.add_argument("--output", required=True, metavar="DIR", help="the checkpoint folder to write")
    parser.add_argument(
        "--checkpoint",
        metavar="DIR",
        help="the teacher, and where the student starts (default: the first that is found)",
    )
    parser.add_argument("--emotions", metavar="DIR", help="folder of the emotion priors, instead of the checkpoint's")
    parser.add_argument(
        "--passes", type=int, default=4, metavar="N", help="steps that the student is sampled with (default: 4)"
    )
    parser.add_argument(
        "--trains",
        choices=WHAT_TRAINS,
        default=DistillationOptions.trains,
        help="lora: a LoRA on the UNet's attention (default; needs peft); adapters, with audio projection, pose guider "
        "and emotion model; all: everything, for which a tenth of the learning rate is usual",
    )
    parser.add_argument(
        "--labels",
        action="store_true",
        help="give a clip that has a label its own emotion; else every clip gets any of the eight",
    )
    parser.add_argument(
        "--portraits",
        choices=PORTRAITS,
        default=DistillationOptions.portraits,
        help="a clip's portrait is a frame of itself (default), or of any clip of the same person",
    )
    add_run_arguments(parser)
    add_numbers(parser, OPTIONS, DistillationOptions)


def run(args):
    """Distill, and write the student and the report. Returns 0."""
    from ..checkpoints.student import MOST_PASSES
    from ..errors import InputError
    from ..training.options import DistillationOptions

    check_run(args, OPTIONS, _MAY_BE_0)
    if not 1 <= args.passes <= MOST_PASSES:
        raise InputError(f"--passes {args.passes}: give 1 to {MOST_PASSES}; 4 is usual.")
    for name in ("reference_scale", "emotion_scale"):
        if getattr(args, name) > 20:
            raise InputError(f"--{name.replace('_', '-')} {getattr(args, name):g}: give 0 to 20.")
    if not args.weakest <= args.strongest <= 2:
        raise InputError(f"--weakest {args.weakest:g} --strongest {args.strongest:g}: give 0 to 2, the smaller first.")
    chosen = {name: getattr(args, name) for name in ("trains", "labels", "portraits", "checkpointing")}
    options = DistillationOptions(**chosen, **{name: getattr(args, name) for name, _, _ in OPTIONS})
    return accelerated(args, lambda accelerator: _distill(args, options, accelerator))


def _distill(args, options, accelerator):
    from ..checkpoints.student import Student, write_student
    from ..training.distillation import build_distillation
    from ..training.parts import check_parts, load_parts

    def build(clips, checkpoint, priors):
        require_no_student(checkpoint)
        parts = load_parts(checkpoint)
        check_parts(parts)
        check_clips(clips, parts, args)
        return build_distillation(parts, options)

    def mark(checkpoint, folder):
        student = Student(args.passes, options.reference_scale, options.emotion_scale, checkpoint.root.name)
        return write_student(student, folder)

    return run_training(args, accelerator, build, lambda checkpoint: f"checkpoint {checkpoint.root.name}", mark)
