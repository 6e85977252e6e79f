"""Measure what decoding in chunks changes, with the decoder of Stable Video Diffusion and seeded random weights."""

import torch

from ..model.settings import LATENT_CHANNELS, LATENT_SCALE
from ..sampling.decoding import CHUNK, CONTEXT, REACH, context_frames, plan_chunk

CHUNKS = (1, CHUNK)
CONTEXTS = (0, 1, 2, 3, CONTEXT, 5, 6, 8, REACH)
FRAMES = 80  # so many that a chunk with the whole reach as its context is not yet all of them


@torch.no_grad()
def measure_borders(width, height, frames, dtype, device, tiny=False, on_decoded=None):
    """The difference of a chunk in the clip's middle to the same frames when all are decoded at once.

    The latents are white noise: frames that differ as much as they can.

    Args:
        width, height: pixels, multiples of 8.
        frames: of the clip.
        dtype, device: of the decoder.
        tiny: the network of `dicetalk tiny` in place of the released size.
        on_decoded: called after each of the 1 + chunk sizes × contexts decodings.

    Returns:
        A list of dicts: "chunk", "context", "chosen" (whether that context is the default's for that chunk), and "mean"
        and "worst_frame", the mean absolute difference of all and of the worst frame, in 1/255.
    """
    vae = _decoder(tiny, device, dtype)
    random = torch.Generator().manual_seed(0)
    shape = (frames, LATENT_CHANNELS, height // 8, width // 8)
    latents = torch.randn(shape, generator=random).to(device, dtype) / LATENT_SCALE

    def decode(window):
        pictures = vae.decode(window, num_frames=len(window)).sample
        if on_decoded:
            on_decoded()
        return (pictures.float() / 2 + 0.5).clamp(0, 1)

    whole, rows = decode(latents), []
    for size in CHUNKS:
        default = context_frames(size, *shape[2:])
        for context in sorted({*CONTEXTS, default}):
            chunk = plan_chunk((frames - size) // 2, frames, size, context)
            pictures = decode(latents[chunk.first : chunk.last])[chunk.start - chunk.first : chunk.stop - chunk.first]
            difference = (pictures - whole[chunk.start : chunk.stop]).abs().mean(dim=(1, 2, 3)) * 255
            row = {"chunk": size, "context": context, "chosen": context == default}
            rows.append(row | {"mean": difference.mean().item(), "worst_frame": difference.max().item()})
    return rows


def _decoder(tiny, device, dtype):
    from diffusers import AutoencoderKLTemporalDecoder

    from ..checkpoints.tiny import CHANNELS
    from ..model.frames import use_frame_blocks
    from .verify import fill

    channels = CHANNELS if tiny else (128, 256, 512, 512)
    vae = fill(
        AutoencoderKLTemporalDecoder(
            block_out_channels=channels,
            down_block_types=("DownEncoderBlock2D",) * len(channels),
            layers_per_block=1 if tiny else 2,
        ),
        device=device,
        dtype=dtype,
    )
    return use_frame_blocks(vae)
