"""Prepare recordings for `train`: compute what a training step needs, once, and keep it in shards.

DATA is a manifest (.csv or .jsonl with the columns video, audio, emotion, level, person, split, landmarks, face_box,
fps, name; the first, the third and the fifth are needed), or with --layout a folder of MEAD, RAVDESS or CREMA-D. What
was prepared before is passed over, so that an ended run resumes; a recording that cannot be used is named and left
out."""

HELP = "compute the features of recordings that train needs"

EXAMPLES = (
    ("the recordings that a table lists", "recordings.csv --output features"),
    ("CREMA-D, with faces of 256 pixels", "CREMA-D/AudioWAV --layout crema-d --output features --size 256"),
)


def add_arguments(parser):
    parser.add_argument("data", metavar="DATA", help="the manifest, or the folder of the recordings")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the shards")
    parser.add_argument("--layout", choices=("mead", "ravdess", "crema-d"), help="DATA is a folder named so")
    parser.add_argument("--view", default="front", help="which of MEAD's cameras (default: %(default)s)")
    parser.add_argument(
        "--checkpoint",
        metavar="DIR",
        help="checkpoint with the VAE, the CLIP tower and Whisper (default: the first that is found)",
    )
    parser.add_argument(
        "--embedder", metavar="FILE", help="a trained emotion embedder, whose Gaussian of each recording is kept"
    )
    parser.add_argument("--size", type=int, default=512, metavar="PIXELS", help="of the face crop (default: 512)")
    parser.add_argument(
        "--least-frames", type=int, default=25, metavar="N", help="shorter recordings are left out (default: 25)"
    )
    parser.add_argument(
        "--most-frames", type=int, default=250, metavar="N", help="longer recordings are cut (default: 250)"
    )
    parser.add_argument("--per-shard", type=int, default=32, metavar="N", help="recordings in a file (default: 32)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps … (default: CUDA if there is one, else cpu)")


def run(args):
    """Prepare, and print what was left out. Returns 0."""
    import sys

    from tqdm import tqdm

    from ..checkpoints.finding import resolve_checkpoint
    from ..errors import InputError
    from ..memory import choose_device
    from ..pipeline import DiceTalkPipeline
    from ..training.prepare import prepare
    from ..training.recordings import find_sources, read_manifest

    for name in ("least_frames", "most_frames", "per_shard"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(args, name)}: give 1 or more.")
    if args.size < 64 or args.size % 64:
        raise InputError(f"--size {args.size}: give a multiple of 64.")
    sources = find_sources(args.data, args.layout, args.view) if args.layout else read_manifest(args.data)
    checkpoint = resolve_checkpoint(args.checkpoint)
    device, pipeline = choose_device(args.device), DiceTalkPipeline.from_checkpoint(checkpoint)
    for module in (pipeline.vae, pipeline.image_encoder, pipeline.audio_encoder):
        module.to(device)
    with tqdm(total=len(sources), desc="prepared", unit="clip", disable=None) as bar:

        def on_clip(source, problem):
            if problem:
                tqdm.write(f"{source.name} is left out: {problem}", sys.stderr)
            bar.update()

        counts = prepare(
            *(sources, args.output, pipeline, args.size, args.least_frames, args.most_frames, args.per_shard),
            embedder=_embedder(args, checkpoint, pipeline) if args.embedder else None,
            models=checkpoint.root.name,
            on_clip=on_clip,
        )
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    if not counts["prepared"] + counts["there"]:
        raise InputError(f"None of the {len(sources)} recordings can be used; see above.")
    return 0


def _embedder(args, checkpoint, pipeline):
    """`prepare`'s embedder: the mean and the deviation that the file reads off a recording."""
    import dataclasses

    import torch

    from ..checkpoints.priors import load_priors
    from ..embedder.files import load_embedder
    from ..emotion.options import NAMES
    from ..reading.files import open_clip

    embedder = load_embedder(args.embedder, pipeline.audio_encoder, pipeline.audio_encoder.device)
    priors = {name: each for name, each in load_priors(checkpoint.folder("emotions")).items() if name in NAMES}

    def read(source):
        clip = open_clip(source.video, source.landmarks)
        if source.audio is not None:
            clip = dataclasses.replace(clip, audio=open_clip(source.audio).audio)
        emotion = embedder.read(clip, priors).emotion
        return torch.stack([emotion.mean, emotion.deviation])

    return read
