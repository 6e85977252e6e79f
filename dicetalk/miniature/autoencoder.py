"""Training of a small temporal VAE, of Stable Video Diffusion's class and layout, on pictures.

First all of it on single pictures, then the decoder alone, at last on short clips, in which its layers along the
frames learn.
"""

import math

import torch

from ..errors import InputError
from ..model.settings import LATENT_CHANNELS, LATENT_SCALE
from .state import Kept

CHANNELS = (64, 64, 128, 128)
CLIP = 4  # frames
KL = 5e-4  # weight of the divergence from a standard normal, a mean over the latent's numbers
EDGES = 1.0  # weight of the differences between neighbouring pixels
_CONSTANT = 4.0
FACE = 3.0  # weight of a pixel in the face's box; others have 1


def new_autoencoder(seed=0):
    """diffusers' `AutoencoderKLTemporalDecoder` with random weights, whose frames do not see each other yet."""
    from diffusers import AutoencoderKLTemporalDecoder

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKLTemporalDecoder(
            block_out_channels=CHANNELS,
            down_block_types=("DownEncoderBlock2D",) * len(CHANNELS),
            layers_per_block=1,
            sample_size=64,
            scaling_factor=LATENT_SCALE,
        )
    _start_plainly(vae)
    return vae


def _start_plainly(vae):
    """Weights with which it is a plain chain of resizing convolutions: so colours pass from the first step on.

    Residual branches add nothing yet, the chain keeps the size of its signal, and a constant channel in each group of
    the two last norms lets the others through nearly as they are.
    """
    for name, module in vae.named_modules():
        if name.endswith(("conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "coder.conv_in")):
            module.weight.data *= math.sqrt(3)
        elif name.endswith(("conv2", "to_out.0")):
            module.weight.data.zero_()
            module.bias.data.zero_()
    last = ((vae.encoder.conv_norm_out, vae.encoder.down_blocks[-2].downsamplers[0].conv),)
    last += ((vae.decoder.conv_norm_out, vae.decoder.up_blocks[-2].upsamplers[0].conv),)
    for norm, convolution in last:
        every = norm.num_channels // norm.num_groups
        convolution.weight.data[every - 1 :: every] = 0
        convolution.bias.data[every - 1 :: every] = _CONSTANT


def train_autoencoder(
    vae, takes, steps, encoder_steps, batch=4, rate=8e-4, seed=0, state=None, precision=torch.bfloat16, on_step=None
):
    """Train in place; at the end the weights are their moving average.

    Args:
        vae: `new_autoencoder`.
        takes: a list of name → array with frames (n, size, size, 3) uint8 and box (4,), pixels.
        steps: of the optimizer; the last quarter is on clips.
        encoder_steps: after which the encoder stays as its moving average is.
        batch: pictures in a step, a multiple of 4.
        rate: AdamW's, which falls to a tenth along half a cosine.
        seed: of what is random; drawn anew for each step, so that a run that goes on draws the same.
        state: file to keep the state in and to go on from; None keeps none.
        precision: of the computation.
        on_step: called as ``on_step(done, total, loss)``.
    """
    if batch % CLIP:
        raise InputError(f"A batch of {batch} pictures cannot be cut into clips of {CLIP}: give a multiple of {CLIP}.")
    weights = [_face_weights(take) for take in takes]
    optimizer = torch.optim.AdamW(vae.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=1e-4)
    kept = Kept(vae, optimizer, state, ema=0.995)
    for step in range(kept.load(), steps):
        random = torch.Generator().manual_seed(seed * 1_000_003 + step)
        if step == encoder_steps:
            kept.average.copy_to(vae.parameters())
        for module in (vae.encoder, vae.quant_conv):
            module.requires_grad_(step < encoder_steps)
        clip = CLIP if step >= 0.75 * steps else 1
        pictures, weight = _draw(takes, weights, batch, clip, random)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 50) * (0.55 + 0.45 * math.cos(math.pi * step / steps))
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            latents = vae.encode(pictures).latent_dist
            noise = torch.randn(latents.mean.shape, generator=random)
            out = vae.decode(latents.mean + latents.std * noise, num_frames=clip).sample
        loss = _loss(out.float(), pictures, weight) + KL * latents.kl().mean() / latents.mean[0].numel()
        if not torch.isfinite(loss):
            raise InputError(f"The loss is not finite in step {step + 1}: lower the rate.")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        kept.step(step + 1, steps)
        if on_step is not None:
            on_step(step + 1, steps, float(loss.detach()))
    kept.finish()


def _draw(takes, weights, batch, clip, random):
    """(batch, 3, size, size) in -1..1 and (batch, 1, size, size): stretches of `clip` frames, mirrored by chance."""
    frames, weight = [], []
    for _ in range(batch // clip):
        number = int(torch.randint(len(takes), (), generator=random))
        take = takes[number]["frames"]
        start = int(torch.randint(len(take) - clip + 1, (), generator=random))
        part, of_pixels = torch.from_numpy(take[start : start + clip]), weights[number].expand(clip, -1, -1, -1)
        if int(torch.randint(2, (), generator=random)):
            part, of_pixels = part.flip(2), of_pixels.flip(3)
        frames.append(part)
        weight.append(of_pixels)
    pictures = torch.cat(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pictures, torch.cat(weight)


def _face_weights(take):
    size = take["frames"].shape[1]
    weights = torch.ones(1, 1, size, size)
    x1, y1, x2, y2 = (round(float(value)) for value in take["box"])
    weights[..., y1:y2, x1:x2] = FACE
    return weights / weights.mean()


def _loss(out, wanted, weight):
    error = out - wanted
    loss = (weight * (error.abs() + error.square())).mean()
    for dim in (2, 3):
        loss = loss + EDGES * (weight.narrow(dim, 1, weight.shape[dim] - 1) * error.diff(dim=dim).abs()).mean()
    return loss


@torch.no_grad()
def scale_latents(vae, takes, count=256) -> float:
    """Give the latents the spread that `LATENT_SCALE` makes to 1; pictures stay the same.

    Args:
        vae: changed in place.
        takes: as for `train_autoencoder`; a picture of each of the first `count` is looked at.

    Returns:
        The factor, folded into the encoder's last and the decoder's first convolution.
    """
    pictures = torch.stack([torch.from_numpy(take["frames"][len(take["frames"]) // 2]) for take in takes[:count]])
    pictures = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
    factor = 1 / LATENT_SCALE / float(vae.encode(pictures).latent_dist.mode().std())
    convolution = vae.quant_conv
    convolution.weight[:LATENT_CHANNELS] *= factor
    convolution.bias[:LATENT_CHANNELS] *= factor
    convolution.bias[LATENT_CHANNELS:] += 2 * math.log(factor)
    vae.decoder.conv_in.weight /= factor
    return factor
