"""Training of a small temporal VAE, of Stable Video Diffusion's class and layout, on pictures.

First all of it on single pictures, then the decoder alone, at last on short clips, in which its layers along the
frames learn.
"""

import math

import torch
import torch.nn.functional as F

from ..errors import InputError
from ..model.frames import use_frame_blocks
from ..model.settings import LATENT_CHANNELS, LATENT_SCALE
from .muon import Muon
from .small_training import SmallTraining

CHANNELS = (64, 64, 128, 128)
CLIP = 4  # frames
KL = 5e-4  # weight of the divergence from a standard normal, a mean over the latent's numbers
EDGES = 1.0  # weight of the differences between neighbouring pixels
COARSE = 2.0  # weight of the mean over squares of 8 pixels, which keeps colours
FACE = 3.0  # weight of a pixel in the face's box; others have 1
WARM_UP = 50  # steps in which the rate rises


def new_vae(seed=0):
    """diffusers' `AutoencoderKLTemporalDecoder` with random weights, whose convolutions over frames see one yet."""
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
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, torch.nn.Conv3d) and module.kernel_size[0] == 3:
                module.weight[:, :, ::2] = 0  # while pictures are single, nothing is learned there
    return use_frame_blocks(vae)


def train_vae(
    vae, takes, steps, encoder_steps, batch=8, rate=2.5e-3, seed=0, state=None, precision=torch.bfloat16, on_step=None
):
    """Train in place; at the end the weights are their moving average.

    Args:
        vae: `new_vae`.
        takes: a list of name → array with frames (n, size, size, 3) uint8 and box (4,), pixels.
        steps: of the optimizer; the last quarter is on clips.
        encoder_steps: after which the encoder stays as its moving average is.
        batch: pictures in a step, a multiple of 4.
        rate: Muon's, which falls to nearly nothing along half a cosine.
        seed: of what is random; drawn for each step from it, so that a run that continues draws the same.
        state: file to keep the state in and to continue from; None keeps none.
        precision: of the computation.
        on_step: called as ``on_step(done, total, loss)``.

    Raises:
        InputError: the batch cannot be cut into clips, or the state cannot be read or written.
        NotFinite: the loss is no finite number.
    """
    if batch % CLIP:
        raise InputError(f"A batch of {batch} pictures cannot be cut into clips of {CLIP}: give a multiple of {CLIP}.")
    weights = [_face_weights(take) for take in takes]
    training = SmallTraining(vae, rate, 0.995, state, on_step, Muon)
    for step in training.steps(steps):
        random = torch.Generator().manual_seed(seed * 1_000_003 + step)
        if step == encoder_steps:
            training.use_average()
        for module in (vae.encoder, vae.quant_conv):
            module.requires_grad_(step < encoder_steps)
        clip = CLIP if step >= 0.75 * steps else 1
        pictures, weight = _draw(takes, weights, batch, clip, random)
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            latents = vae.encode(pictures).latent_dist
            noise = torch.randn(latents.mean.shape, generator=random)
            out = vae.decode(latents.mean + latents.std * noise, num_frames=clip).sample
        loss = _loss(out.float(), pictures, weight) + KL * latents.kl().mean() / latents.mean[0].numel()
        falling = min(1, (step + 1) / WARM_UP) * (0.51 + 0.49 * math.cos(math.pi * step / steps))
        training.step(loss, step + 1, steps, falling)


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
    loss = loss + COARSE * F.avg_pool2d(error, 8).abs().mean()
    for dim in (2, 3):
        loss = loss + EDGES * (weight.narrow(dim, 1, weight.shape[dim] - 1) * error.diff(dim=dim).abs()).mean()
    return loss


@torch.no_grad()
def scale_latents(vae, takes, count=256) -> float:
    """Give the latents the spread that `LATENT_SCALE` makes to 1; pictures stay the same.

    Args:
        vae: changed in place.
        takes: as for `train_vae`; a picture of each of the first `count` is looked at.

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
