"""A DICE-Talk model small enough to sample with in a blink, inside ComfyUI's own classes."""

import importlib

import comfy_files
import torch

FRAMES = 7
LATENT = (4, 4, 4)
TOKENS, WIDTH = 2, 8
UNET = {
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
    "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    "block_out_channels": (32, 32),
    "num_attention_heads": (1, 1),
    "layers_per_block": 1,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 24,
    "cross_attention_dim": WIDTH,
}


class SmallModel:
    """The pack, and a ModelPatcher of ComfyUI's around a small native model with seeded weights."""

    def __init__(self, pack):
        import comfy.model_management
        import comfy.model_patcher

        self.pack = pack
        torch.set_num_threads(1)
        settings = self.module("nodes.sampling.model").DiceTalkModelConfig(dict(UNET))
        settings.set_inference_dtype(torch.float32, None)
        native = settings.get_model({})
        self.module("dicetalk.measure.verify").fill(native.diffusion_model)
        offload = comfy.model_management.unet_offload_device()
        native.to(offload)
        self.patcher = comfy.model_patcher.ModelPatcher(native, comfy.model_management.get_torch_device(), offload)

    def module(self, name):
        return importlib.import_module(f"{self.pack.__name__}.{name}")

    def save(self, path):
        """Write the UNet as a published file is written: its tensors, in a .pth."""
        torch.save(self.patcher.model.diffusion_model.state_dict(), path)
        return path

    def load(self, path, **options):
        """What Load DICE-Talk's MODEL would be, in float32 as on a CPU unless `options` say otherwise."""
        return self.module("nodes.sampling.model").load_unet(path, {"dtype": torch.float32} | options)

    def conditions(self, frames=FRAMES, seed=0, latent=LATENT):
        random = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return torch.randn(shape, generator=random)

        height, width = latent[1:]
        return self.module("dicetalk.sampling.conditions").Conditions(
            image_latent=normal(1, *latent),
            clip_embeds=normal(1, WIDTH),
            audio_tokens=normal(frames, TOKENS, WIDTH),
            uncond_audio_tokens=normal(1, TOKENS, WIDTH),
            emotion_tokens=normal(1, TOKENS, WIDTH),
            uncond_emotion_tokens=normal(1, TOKENS, WIDTH),
            face_mask=torch.rand(1, 1, 8 * height, 8 * width, generator=random),
            pose_features=normal(1, UNET["block_out_channels"][0], height, width),
        )

    def guider(self, patcher=None, conditions=None, scales=(3.0, 6.0), **options):
        kind = self.module("nodes.sampling.guider").DiceTalkGuider
        return kind(patcher or self.patcher, conditions or self.conditions(), *scales, **options)

    def start(self, guider):
        """The LATENT that DICE-Talk Guider gives."""
        return {"samples": guider.conditions.image_latent.repeat(guider.conditions.num_frames, 1, 1, 1)}

    def sigmas(self, guider, scheduler="karras", steps=3, denoise=1.0):
        import comfy.samplers

        total = int(steps / denoise)
        model_sampling = guider.model_patcher.get_model_object("model_sampling")
        return comfy.samplers.calculate_sigmas(model_sampling, scheduler, total)[-(steps + 1) :]

    def sample(self, guider=None, sampler="euler", sigmas=None, latent=None, seed=0, steps=3):
        """SamplerCustomAdvanced: the LATENT (N, 4, h, w), and the denoised one."""
        import comfy.samplers
        from comfy_extras.nodes_custom_sampler import Noise_RandomNoise, SamplerCustomAdvanced

        guider = guider or self.guider()
        sigmas = self.sigmas(guider, steps=steps) if sigmas is None else sigmas
        method = comfy.samplers.sampler_object(sampler) if isinstance(sampler, str) else sampler
        latent = latent or self.start(guider)
        with torch.inference_mode():
            out, denoised = SamplerCustomAdvanced.execute(
                Noise_RandomNoise(seed), guider, method, sigmas, latent
            ).result
        return out["samples"], denoised["samples"]


def temporal_vae(fill, path, width=32, blocks=1):
    """ComfyUI's VAE around a narrow temporal decoder, filled by `fill`; its encoder is written to `path`."""
    import comfy.model_patcher
    import comfy.sd
    import comfy.utils
    from comfy.ldm.models.autoencoder import AutoencodingEngine

    comfy_files.write_small_vae(path)
    vae = comfy.sd.VAE(comfy.utils.load_torch_file(str(path)), dtype=torch.float32)
    config = {"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": width}
    config |= {"ch_mult": [1, 1, 1, 1], "num_res_blocks": blocks, "attn_resolutions": [], "dropout": 0.0}
    vae.first_stage_model = fill(
        AutoencodingEngine(
            regularizer_config={"target": "comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer"},
            encoder_config={"target": "comfy.ldm.modules.diffusionmodules.model.Encoder", "params": config},
            decoder_config={
                "target": "comfy.ldm.modules.temporal_ae.VideoDecoder",
                "params": config | {"video_kernel_size": [3, 1, 1], "alpha": 0.0},
            },
        )
    )
    vae.patcher = comfy.model_patcher.CoreModelPatcher(vae.first_stage_model, vae.device, torch.device("cpu"))
    return vae
