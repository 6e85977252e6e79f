"""Stable Video Diffusion's VAE and CLIP vision tower out of a checkpoint's folder, as ComfyUI's VAE and CLIP_VISION.

ComfyUI's loaders know their full size alone, and the VAE in another layout of names. Here their sizes are read off the
folder's configuration, so that smaller ones work too; the networks, their memory management and all that nodes can do
with them are ComfyUI's own. Nothing is read before something uses them.
"""

import comfy.clip_vision
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import torch
from comfy.ldm.models.autoencoder import AutoencodingEngine

from ..dicetalk.errors import InputError

_AUTOENCODER = "comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer"
_ENCODER = "comfy.ldm.modules.diffusionmodules.model.Encoder"
_DECODER = "comfy.ldm.modules.temporal_ae.VideoDecoder"
_LAYERS = "vision_model.encoder.layers."
_SMALLEST = {  # of ComfyUI's plain VAE, which stands in until the network is there
    "ddconfig": {
        **{"double_z": True, "z_channels": 4, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32},
        **{"ch_mult": [1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0},
    },
    "embed_dim": 4,
}


class _Later:
    """Is what it is once something asks for it: `_load` then fills it."""

    _checkpoint = None  # until it is loaded, then None again

    def __getattr__(self, name):
        # ComfyUI's cache asks every output for this
        if self._checkpoint is None or name.startswith("__") or name == "is_dynamic":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        checkpoint, self._checkpoint = self._checkpoint, None
        try:
            self._load(checkpoint.folder("svd"))
        except BaseException:
            self._checkpoint = checkpoint  # the next one who asks gets the same answer
            raise
        return getattr(self, name)


class CheckpointVae(_Later, comfy.sd.VAE):
    """VAE of a `Checkpoint` (`dicetalk.checkpoints.finding`).

    Raises:
        InputError: when it is first used: the folder is missing, or cannot be used.
    """

    def __init__(self, checkpoint):
        self._checkpoint = checkpoint

    def is_dynamic(self):
        return self._checkpoint is None and super().is_dynamic()

    def of_dtype(self, dtype):
        """Another one of the same weights."""
        config, weights, device = self._config, self.get_sd(), self.device
        other = type(self)(None)
        other._build(config, weights, device, dtype)
        return other

    def _load(self, folder):
        from ..dicetalk.checkpoints.svd import VAE, load_svd_part

        module = load_svd_part(folder, VAE, torch.float32)
        config, weights = dict(module.config), module.state_dict()
        self._build(_sizes(config, folder), comfy_weights(weights, len(config["block_out_channels"])))

    def _build(self, config, weights, device=None, dtype=None):
        self._config = config
        stand_in = comfy.sd.AutoencoderKL(**_SMALLEST).state_dict()
        comfy.sd.VAE.__init__(self, sd=stand_in, config={"params": _SMALLEST}, device=device, dtype=dtype)
        decoder = {**config, "video_kernel_size": [3, 1, 1], "alpha": 0.0}
        network = AutoencodingEngine(
            regularizer_config={"target": _AUTOENCODER},
            encoder_config={"target": _ENCODER, "params": config},
            decoder_config={"target": _DECODER, "params": decoder},
        )
        network = network.eval().requires_grad_(False).to(self.vae_dtype)
        comfy.model_management.archive_model_dtypes(network)
        self.patcher = comfy.model_patcher.CoreModelPatcher(
            network, load_device=self.device, offload_device=comfy.model_management.vae_offload_device()
        )
        if config["num_res_blocks"] == 1:
            weights = _without_second_block(weights, network.state_dict())
        network.load_state_dict(weights, assign=self.patcher.is_dynamic())
        self.first_stage_model = network
        times = 2 ** (len(config["ch_mult"]) - 1)
        self.downscale_ratio = self.upscale_ratio = times
        self.latent_channels, self.size = config["z_channels"], None
        self.model_size()


class CheckpointClipVision(_Later, comfy.clip_vision.ClipVisionModel):
    """CLIP_VISION of a `Checkpoint`; errors as `CheckpointVae`."""

    def __init__(self, checkpoint):
        self._checkpoint = checkpoint

    def _load(self, folder):
        from ..dicetalk.checkpoints.svd import TOWER, load_svd_part

        module = load_svd_part(folder, TOWER, "auto")
        config, weights = module.config.to_dict(), module.state_dict()
        alone = config["num_hidden_layers"] == 1  # ComfyUI takes the output of the last layer but one as well
        if alone:
            config["num_hidden_layers"] = 2
            weights = {name.replace(f"{_LAYERS}0.", f"{_LAYERS}1."): tensor for name, tensor in weights.items()}
        comfy.clip_vision.ClipVisionModel.__init__(self, config)
        if alone:  # a layer whose weights are 0 does nothing
            own = self.model.state_dict()
            weights |= {name: torch.zeros_like(own[name]) for name in own if name.startswith(f"{_LAYERS}0.")}
        self.load_sd(weights)


def _sizes(config, folder):
    """ComfyUI's configuration of the VAE's two halves, from diffusers'."""
    widths = config["block_out_channels"]
    if config["layers_per_block"] > 2:
        raise InputError(f"{folder}/vae has {config['layers_per_block']} layers a block: ComfyUI's VAE has at most 2.")
    if any(width % widths[0] for width in widths):
        raise InputError(
            f"{folder}/vae has levels {', '.join(map(str, widths))} wide: ComfyUI's VAE needs multiples of the first."
        )
    return {
        **{"double_z": True, "z_channels": config["latent_channels"], "resolution": 256},
        **{"in_channels": config["in_channels"], "out_ch": config["out_channels"], "ch": widths[0]},
        **{"ch_mult": [width // widths[0] for width in widths], "num_res_blocks": config["layers_per_block"]},
        **{"attn_resolutions": [], "dropout": 0.0},
    }


def comfy_weights(weights, levels):
    """The VAE's weights under the names of ComfyUI, from those of diffusers.

    diffusers has one more layer, a linear map of the encoder's last channels (`quant_conv`), which is folded into the
    convolution before it.

    Args:
        weights: name → tensor of diffusers' `AutoencoderKLTemporalDecoder`.
        levels: how many levels it has.
    """
    renamed = {_comfy_name(name, levels): tensor for name, tensor in weights.items() if "quant_conv" not in name}
    for name, tensor in renamed.items():
        if ".attn_1." in name and name.endswith(".weight") and tensor.ndim == 2:
            renamed[name] = tensor[:, :, None, None]
    turn, shift = weights["quant_conv.weight"][:, :, 0, 0], weights["quant_conv.bias"]
    last, bias = "encoder.conv_out.weight", "encoder.conv_out.bias"
    renamed[bias] = turn @ renamed[bias] + shift
    renamed[last] = torch.einsum("oi,ichw->ochw", turn, renamed[last])
    return renamed


def _without_second_block(weights, network):
    """diffusers' decoder with one layer a block has neither attention nor a second block in the middle; ComfyUI's
    always has both, which do nothing where their last weights are 0."""
    idle = ("decoder.mid.block_2.", "decoder.mid.attn_1.proj_out.")
    return weights | {name: torch.zeros_like(tensor) for name, tensor in network.items() if name.startswith(idle)}


# diffusers' part of a name → ComfyUI's, in this order.
_PARTS = (
    ("spatial_res_block.", ""),
    ("temporal_res_block.norm1", "time_stack.in_layers.0"),
    ("temporal_res_block.conv1", "time_stack.in_layers.2"),
    ("temporal_res_block.norm2", "time_stack.out_layers.0"),
    ("temporal_res_block.conv2", "time_stack.out_layers.3"),
    ("time_mixer.mix_factor", "mix_factor"),
    ("decoder.time_conv_out", "decoder.conv_out.time_mix_conv"),
    ("conv_shortcut", "nin_shortcut"),
    ("conv_norm_out", "norm_out"),
    ("mid_block.attentions.0.", "mid.attn_1."),
    ("mid_block.resnets.0.", "mid.block_1."),
    ("mid_block.resnets.1.", "mid.block_2."),
    ("group_norm", "norm"),
    ("to_q", "q"),
    ("to_k", "k"),
    ("to_v", "v"),
    ("to_out.0", "proj_out"),
    ("downsamplers.0", "downsample"),
    ("upsamplers.0", "upsample"),
    ("resnets.", "block."),
)


def _comfy_name(name, levels):
    for theirs, ours in _PARTS:
        name = name.replace(theirs, ours)
    parts = name.split(".")
    if parts[1] == "down_blocks":
        parts[1] = "down"
    elif parts[1] == "up_blocks":  # which ComfyUI counts from the finest level on
        parts[1], parts[2] = "up", str(levels - 1 - int(parts[2]))
    return ".".join(parts)
