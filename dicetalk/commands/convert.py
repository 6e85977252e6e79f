"""Convert a checkpoint's .pth and .npy files to safetensors, which hold only numbers. Where Stable Video Diffusion is
svd_xt.safetensors as ComfyUI has it, its VAE and CLIP vision tower are cut out of it (1.5 GB of 9.6).
Each new file records the name and SHA-256 of the file that it comes from; converted files are left as
they are, so that an interrupted run can be repeated."""

HELP = "convert a published checkpoint to safetensors"

EXAMPLES = (
    ("new files next to the old ones", "checkpoints"),
    ("a complete copy in half precision", "checkpoints --output checkpoints-fp16 --dtype float16"),
)


def add_arguments(parser):
    parser.add_argument(
        "source", metavar="SOURCE", help="a checkpoint folder, or the name of one in ComfyUI's models/dicetalk"
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="write a new, complete checkpoint folder (default: the new files are written next to the old ones)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float16", "bfloat16", "float32"),
        help="precision of the weights (default: as they are)",
    )


def run(args):
    from tqdm import tqdm

    from ..checkpoints.convert import convert_checkpoint, describe, total_bytes
    from ..checkpoints.finding import resolve_checkpoint

    checkpoint = resolve_checkpoint(args.source)
    files = []
    with tqdm(total=total_bytes(checkpoint), desc="converting", unit="B", unit_scale=True, disable=None) as progress:

        def on_file(path, written):
            files.append(written)
            progress.write(describe(path, written))

        convert_checkpoint(checkpoint, args.output, args.dtype, on_bytes=progress.update, on_file=on_file)
    print(f"{sum(files)} files written, {len(files) - sum(files)} up to date.")
    if args.output:
        print(f"Use the new checkpoint with --checkpoint {args.output}")
    return 0
