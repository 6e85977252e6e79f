"""Write a complete tiny, untrained checkpoint (about 40 MB) in the published layout, to try things out without the real
weights. Pictures made with it are noise."""

HELP = "write a tiny, untrained checkpoint to try things out with"

EXAMPLES = (("write it; `generate --checkpoint tiny` then uses it", "tiny"),)


def add_arguments(parser):
    parser.add_argument(
        "folder", metavar="DIR", help="where to write it; a new or empty folder, or an earlier one of these"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the random weights (default: %(default)s)")


def run(args):
    from pathlib import Path

    from tqdm import tqdm

    from ..checkpoints.tiny import STEPS, write_tiny_checkpoint

    with tqdm(total=len(STEPS), desc="tiny checkpoint", unit="part", disable=None) as progress:
        write_tiny_checkpoint(args.folder, args.seed, on_step=lambda name: progress.update())
    folder = Path(args.folder).expanduser().absolute()
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"Wrote a tiny, untrained checkpoint of {size / 1e6:.0f} MB to {folder}")
    print(f"Use it with --checkpoint {folder}; pictures made with it are noise.")
    return 0
