"""Make a miniature: the whole method in the smallest sizes that show it, trained on drawn people alone.

It draws people, trains an audio encoder, an image encoder and a VAE, and then the method itself. What an ended run
finished is not done again. With the numbers of the defaults it takes hours on two cores of a CPU."""

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
    for name, text in OPTIONS:
        default = getattr(Making, name)
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=int, default=default, metavar="N", help=f"{text} (default: {default})"
        )


def run(args):
    from pathlib import Path

    from tqdm import tqdm

    from ..checkpoints.finding import MINIATURE_FILE, WEIGHTS_FOLDER
    from ..errors import InputError
    from ..miniature.make import make
    from ..miniature.options import Making

    for name, _ in OPTIONS:
        value, least = getattr(args, name), 0 if name in ("seed", "cool_down") else 1
        if value < least:
            raise InputError(f"--{name.replace('_', '-')} {value}: give {least} or more.")
    try:
        import accelerate  # noqa: F401  (of the last stage)
    except ImportError as error:
        raise InputError(
            f"Training needs a package that is not installed ({error}): `pip install accelerate`."
        ) from error
    output = Path(args.output).expanduser().absolute()
    if (output / WEIGHTS_FOLDER).exists() and not (output / MINIATURE_FILE).is_file():
        raise InputError(f"{output} holds weights that are not of a miniature: name another folder.")
    work = Path(args.work).expanduser() if args.work else output.with_name(f"{output.name}-work")
    bars = {}

    def on_progress(stage, done, total, loss):
        if stage not in bars:
            for earlier in bars.values():
                earlier.close()
            bars[stage] = tqdm(total=total, desc=stage, disable=None)
        if loss is not None:
            bars[stage].set_postfix(loss=f"{loss:.4f}", refresh=False)
        bars[stage].update(done - bars[stage].n)

    try:
        making = Making(**{name: getattr(args, name) for name, _ in OPTIONS})
        make(output, work, making, args.mixed_precision, on_progress)
    except OSError as error:
        place = error.filename or output
        raise InputError(f"{place}: cannot be read or written ({error.strerror or error}).") from error
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"Wrote a miniature of {size / 1e6:.0f} MB to {output}")
    return 0
