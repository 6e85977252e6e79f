"""Make a miniature: the whole method in the smallest sizes that show it, trained on drawn people alone.

It draws people, trains an audio encoder, an image encoder and a VAE, and then the method itself. What an ended run
finished is not done again. With the numbers of the defaults it takes hours on two cores of a CPU."""

from .progress import Progress
from .training_run import add_whole_numbers, check_whole_numbers, require_accelerate

HELP = "train a small checkpoint on drawn people, all of it"

EXAMPLES = (
    ("where `python dev.py demo` looks for one", "--output miniature"),
    (
        "a try that takes minutes and learns little",
        "--output small --takes 60 --people 20 --vae-steps 100 --steps 20 --full-steps 10",
    ),
)

OPTIONS = (
    ("takes", "drawn takes to learn from"),
    ("people", "people in them"),
    ("vae_steps", "steps of the VAE's training"),
    ("vae_encoder_steps", "steps after which the VAE's encoder stays as it is"),
    ("audio_encoder_steps", "steps of the audio encoder's training"),
    ("image_encoder_steps", "steps of the image encoder's training"),
    ("steps", "steps of the method's own training, half of the clips by the nearest code of the bank"),
    ("full_steps", "steps after those, all by the full bank; may grow when the command is run again"),
    ("cool_down", "last steps of these, over which the learning rate falls to nothing"),
    ("batch", "clips in a step of it"),
    ("seed", "of everything that is random"),
)


def add_arguments(parser):
    from ..miniature.options import Making

    parser.add_argument("--output", required=True, metavar="DIR", help="the checkpoint folder to write")
    parser.add_argument(
        "--work", metavar="DIR", help="folder of what is kept on the way, about 2 GB (default: DIR's name with -work)"
    )
    parser.add_argument(
        "--mixed-precision",
        choices=("no", "bf16"),
        default="bf16",
        help="precision of the VAE's training (default: %(default)s)",
    )
    add_whole_numbers(parser, OPTIONS, Making)


def run(args):
    from pathlib import Path

    from ..checkpoints.finding import MINIATURE_FILE, WEIGHTS_FOLDER
    from ..errors import InputError
    from ..miniature.make import make
    from ..miniature.options import Making

    check_whole_numbers(args, OPTIONS, ("seed", "cool_down"))
    require_accelerate()
    output = Path(args.output).expanduser().absolute()
    if (output / WEIGHTS_FOLDER).exists() and not (output / MINIATURE_FILE).is_file():
        raise InputError(f"{output} holds weights that are not of a miniature: name another folder.")
    work = Path(args.work).expanduser() if args.work else output.with_name(f"{output.name}-work")
    try:
        making = Making(**{name: getattr(args, name) for name, _ in OPTIONS})
        with Progress() as progress:
            make(output, work, making, args.mixed_precision, progress.tell)
    except OSError as error:
        place = error.filename or output
        raise InputError(f"{place}: cannot be read or written ({error.strerror or error}).") from error
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"Wrote a miniature of {size / 1e6:.0f} MB to {output}")
    return 0
