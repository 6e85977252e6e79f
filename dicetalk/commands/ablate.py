"""Train a small network without one part of the method or another, and print one table.

Without the emotion discrimination objective, or with it at other noise levels; without the Emotion Bank; by retrieval
of the nearest code, by the full bank, or by both, and sampled by either; several seeds each. All trainings see the
same drawn takes, through the VAE and the encoders of a miniature. What an ended run measured is not done again, so that
the hours need not be one sitting. (The embedder's ablations are those of `train-embedder --ablations`.)"""

from .progress import Progress
from .training_run import add_whole_numbers, check_whole_numbers, require_accelerate

HELP = "train on drawn people without one part of the method or another, and print a table"

EXAMPLES = (
    ("all of it, with the miniature's VAE and encoders", "--checkpoint miniature --output ablations"),
    (
        "a try of minutes",
        "--checkpoint miniature --output try --takes 64 --people 16 --steps 60 --seeds 1 --measured 1",
    ),
)

OPTIONS = (
    ("takes", "drawn takes to learn from"),
    ("people", "people in them"),
    ("steps", "steps of each training"),
    ("cool_down", "last steps of these, over which the learning rate falls to nothing"),
    ("batch", "clips in a step"),
    ("frames", "frames of a clip, and of a window when clips are sampled"),
    ("seeds", "trainings of each row; may grow when the command is run again"),
    ("measured", "held-out people that are asked for the eight emotions"),
    ("sampling_steps", "steps of their clips"),
)


def add_arguments(parser):
    from ..miniature.options import World

    parser.add_argument(
        "--checkpoint", metavar="DIR", help="the miniature whose VAE and encoders are used", required=True
    )
    parser.add_argument("--output", metavar="DIR", required=True, help="folder of the features, and of ablations.json")
    add_whole_numbers(parser, OPTIONS, World)


def run(args):
    """Train, measure, and print the table. Returns 0."""
    from pathlib import Path

    from ..checkpoints.finding import resolve_checkpoint
    from ..errors import InputError
    from ..measure.ablations import ablate, table
    from ..miniature.options import World

    check_whole_numbers(args, OPTIONS, ("cool_down",))
    require_accelerate()
    checkpoint = resolve_checkpoint(args.checkpoint)
    if not checkpoint.miniature:
        raise InputError(
            f"--checkpoint {args.checkpoint} is no miniature: its VAE and encoders do not know drawn people."
        )
    world = World(**{name: getattr(args, name) for name, _ in OPTIONS})
    with Progress() as progress:
        results = ablate(checkpoint, Path(args.output).expanduser(), world, on_progress=progress.tell)
    print(table(results))
    return 0
