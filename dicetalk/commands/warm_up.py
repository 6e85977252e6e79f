"""Compile the blocks of a checkpoint's UNet before they are needed: `generate --compile` then finds them on the disk.

Once for each size of pictures, precision, device, and version of PyTorch; clips of any length share what is compiled.
It is kept in the folder that the variable TORCHINDUCTOR_CACHE_DIR names, or else in the user's cache."""

from ..job import DTYPES

HELP = "compile the UNet's blocks before they are needed"

EXAMPLES = (
    ("for square pictures of 512 pixels, with the first checkpoint found", ""),
    ("for upright ones, which --guidance-reuse samples", "--checkpoint mine --size 512x768 --guidance-reuse"),
)


def add_arguments(parser):
    add = parser.add_argument
    add("--checkpoint", metavar="DIR", help="folder of the weights, or its name (default: the first one found)")
    add(
        "--size",
        default="512",
        metavar="N or WxH",
        help="pixels of the video, multiples of 64 (default: %(default)s)",
    )
    add(
        "--guidance-reuse",
        action="store_true",
        help="generate gets this option, with which some steps compute one branch of guidance alone: that as well",
    )
    add("--device", help="cpu, cuda, cuda:1, mps … (default: cuda if there is one, else cpu)")
    add("--dtype", choices=DTYPES, help="default: float16 on cuda, else float32")


def run(args):
    """Compile, and print how long it took. Returns 0."""
    from ..checkpoints.finding import resolve_checkpoint
    from ..measure.warm_up import warm_up
    from ..memory import choose_device, choose_dtype
    from ..rendering import load_pipeline
    from .bench import read_size

    width, height = read_size(args.size)
    device, checkpoint = choose_device(args.device, "--device"), resolve_checkpoint(args.checkpoint)
    pipeline = load_pipeline(checkpoint, choose_dtype(args.dtype, device), device)
    pipeline.set_progress_bar_config(desc="Compiling", unit="window", disable=None)
    print(warm_up(pipeline, width, height, args.guidance_reuse).text())
    return 0
