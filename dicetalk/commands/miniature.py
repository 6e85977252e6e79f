"""Make the miniature: the whole method in the smallest sizes that show it, trained on drawn people alone.

It draws people, trains an ear, an eye and a VAE, and then the method itself. What an ended run finished is not done
again. On two cores of a CPU it takes hours: the smaller numbers are for a try."""

HELP = "train a small checkpoint on drawn people, all of it"

EXAMPLES = (
    ("the one that comes with the project", "--output miniature"),
    ("a try that takes minutes and learns little", "--output small --takes 60 --people 20 --autoencoder-steps 100"),
)

OPTIONS = (
    ("takes", "drawn takes to learn from"),
    ("people", "people in them"),
    ("autoencoder_steps", "steps of the VAE's training"),
    ("encoder_steps", "steps after which the VAE's encoder stays as it is"),
    ("ear_steps", "steps of the audio encoder's training"),
    ("eye_steps", "steps of the image encoder's training"),
    ("steps", "steps of the method's own training"),
    ("batch", "clips in a step of it"),
    ("seed", "of everything that is random"),
)
STAGES = {
    "drawing": "drawing takes",
    "ear": "audio encoder",
    "eye": "image encoder",
    "autoencoder": "VAE",
    "features": "features",
    "latents": "latents",
    "method": "the method",
}


def add_arguments(parser):
    from ..miniature.make import Making

    parser.add_argument("--output", required=True, metavar="DIR", help="the checkpoint folder to write")
    parser.add_argument(
        "--work", metavar="DIR", help="folder of what is kept on the way, about 2 GB (default: DIR's name with -work)"
    )
    parser.add_argument(
        "--mixed-precision",
        choices=("no", "bf16"),
        default="bf16",
        help="precision of the VAE's and the method's training (default: %(default)s)",
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
    from ..miniature.make import Making, make

    for name, _ in OPTIONS:
        if getattr(args, name) < (name == "seed") * -1 + 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(args, name)}: give 1 or more.")
    try:
        import accelerate
    except ImportError as error:
        raise InputError(
            f"Training needs a package that is not installed ({error}): `pip install accelerate`."
        ) from error
    output = Path(args.output).expanduser().absolute()
    if (output / WEIGHTS_FOLDER).exists() and not (output / MINIATURE_FILE).is_file():
        raise InputError(f"{output} holds weights that are not of a miniature: name another folder.")
    work = Path(args.work).expanduser() if args.work else output.with_name(f"{output.name}-work")
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision=args.mixed_precision)
    bars = {}

    def on_progress(stage, done, total, loss):
        if stage not in bars:
            for bar in bars.values():
                bar.close()
            bars[stage] = tqdm(total=total, desc=STAGES[stage], disable=None)
        bar = bars[stage]
        if loss is not None:
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        bar.update(done - bar.n)

    try:
        make(output, work, Making(**{name: getattr(args, name) for name, _ in OPTIONS}), accelerator, on_progress)
    except OSError as error:
        place = error.filename or output
        raise InputError(f"{place}: cannot be read or written ({error.strerror or error}).") from error
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"Wrote a miniature of {size / 1e6:.0f} MB to {output}")
    return 0
