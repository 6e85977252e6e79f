"""How many frames are decoded for each that is kept, by the memory of a card: counts that any machine can make."""

from ..sampling.decoding import fitting_chunk, frame_bytes

IN_USE = 1e9  # bytes of a card that a desktop and CUDA take
CARDS = {8: 2.0, 12: 1.5, 24: 1.25, 32: 1.15, 80: 1.15}  # GB: the most frames decoded for each that is kept
FRAME_TARGET = 0.41e9  # bytes of a frame of 512×512 in float16
RELEASED_CHANNELS = 128


def chunk_rows(width=512, height=512, itemsize=2) -> list[dict]:
    """For each card: "card" in GB, "chunk" and "context" in frames, "decoded" for each frame kept, and its "target"."""
    each = frame_bytes(RELEASED_CHANNELS, height, width, itemsize)
    rows = []
    for card, target in CARDS.items():
        size, context = fitting_chunk(int((card * 1e9 - IN_USE) / each))
        decoded = (size + 2 * context) / size
        rows.append({"card": card, "chunk": size, "context": context, "decoded": decoded, "target": target})
    return rows


def counted_frame_bytes() -> float:
    """The decoder's peak for one frame of 512×512 in float16, counted from shapes."""
    import torch
    from diffusers import AutoencoderKLTemporalDecoder
    from torch._subclasses.fake_tensor import FakeTensorMode

    from ..model.frames import use_frame_blocks
    from ..sampling.counting import ActivationTracker

    channels = (RELEASED_CHANNELS, 256, 512, 512)
    down = ("DownEncoderBlock2D",) * len(channels)
    with FakeTensorMode(), torch.no_grad():
        vae = AutoencoderKLTemporalDecoder(block_out_channels=channels, down_block_types=down, layers_per_block=2)
        latents = torch.empty(2, 4, 64, 64)
        with ActivationTracker() as seen:
            use_frame_blocks(vae).decode(latents, num_frames=2)
    return seen.peak / 2 / 2  # of two frames, and float16 takes half of float32


def table() -> str:
    """The counts beside their targets, as text."""
    peak = counted_frame_bytes()
    lines = [
        f"Decoding a frame of 512×512 in float16 takes {peak / 1e9:.3f} GB, counted (target {FRAME_TARGET / 1e9:.2f})",
        "card, GB  chunk  context  decoded per frame kept  target",
    ]
    for row in chunk_rows():
        lines.append(
            f"{row['card']:8}  {row['chunk']:5}  {row['context']:7}  {row['decoded']:22.2f}  {row['target']:6.2f}"
        )
    return "\n".join(lines)
