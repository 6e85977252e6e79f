"""The VAE out of svd_xt.safetensors computes on the command line what ComfyUI's computes from the same file."""

import torch
from safetensors.torch import save_file
from small_model import SmallModel, temporal_vae

from dicetalk.checkpoints.svd import VAE, load_svd_part


def test_the_vae_computes_what_comfyuis_does(pack, tmp_path):
    fill = SmallModel(pack).module("dicetalk.measure.verify").fill
    theirs = temporal_vae(fill, tmp_path / "small.safetensors", blocks=2).first_stage_model.eval()
    weights = {f"first_stage_model.{name}": tensor.contiguous() for name, tensor in theirs.state_dict().items()}
    save_file(weights, tmp_path / "svd_xt.safetensors")
    mine = load_svd_part(tmp_path / "svd_xt.safetensors", VAE, torch.float32)
    random = torch.Generator().manual_seed(0)
    pictures, latents = (torch.randn(shape, generator=random) for shape in ((2, 3, 32, 32), (5, 4, 4, 4)))
    with torch.no_grad():
        torch.testing.assert_close(
            mine.encode(pictures).latent_dist.mode(), theirs.encode(pictures), rtol=1e-4, atol=1e-4
        )
        frames = mine.decode(latents, num_frames=5).sample
        torch.testing.assert_close(frames, theirs.decode(latents), rtol=1e-3, atol=1e-3)
