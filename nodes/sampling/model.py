"""DICE-Talk's UNet as one of ComfyUI's own models."""

import functools
import math
from pathlib import Path

import comfy.conds
import comfy.latent_formats
import comfy.lora
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
import comfy.supported_models_base
import comfy.utils
import torch
from comfy.ldm.modules.attention import optimized_attention
from diffusers.models.resnet import AlphaBlender

from ...dicetalk.checkpoints.loading import fitted_part, read_state_dict
from ...dicetalk.checkpoints.student import read_student
from ...dicetalk.errors import InputError
from ...dicetalk.model.unet import DiceTalkUNet, unet_config_from_state_dict
from ...dicetalk.sampling.reuse import deep_buffers
from .operations import use_operations

# In transformer_options: a `dicetalk.sampling.reuse.DeepCache` and the step; or the UNet's `deep` and `deep_out`.
DEEP_CACHE, _DEEP = "dicetalk_deep_cache", "dicetalk_deep"
# In transformer_options: a function that gets what the mid block gives, (rows, channels) float32 means over the
# picture, and the (branch, frame) of each row; or room for those means.
WATCH, _MIDDLE = "dicetalk_watch", "dicetalk_middle"
# How ComfyUI's Save Model names things.
_SAVED_PREFIX = "model.diffusion_model."
_SAVED_SETTINGS = {"edm_vpred.sigma_max": "sigma_max", "edm_vpred.sigma_min": "sigma_min"}


class Shared(comfy.conds.CONDConstant):
    """A tensor that all branches share, recognised by identity so that it is never compared value by value."""

    def can_concat(self, other):
        return self.cond is other.cond


class PerBranch(comfy.conds.CONDRegular):
    """A tensor with one row per branch; never repeated for the frames of a window."""

    def process_cond(self, batch_size, **kwargs):
        return self


class NativeUNet(DiceTalkUNet):
    """The UNet, built from ComfyUI's operations and called the way ComfyUI calls a diffusion model.

    Frames are ComfyUI's batch: latents are (batch·frames, channels, height, width).
    """

    dtype = None  # of the weights; diffusers' property would look for a weight, which may not be there yet

    def __init__(self, dtype=None, device=None, operations=None, **config):
        with torch.device("meta"):
            super().__init__(**config)
        self.dtype = dtype
        use_operations(self, operations, device, dtype)
        for module in self.modules():
            if isinstance(module, AlphaBlender):
                module.mix_factor = torch.nn.Parameter(torch.empty(1, device=device, dtype=torch.float32))

    def to(self, *args, memory_format=None, **kwargs):
        """As `Module.to`, without --force-channels-last's order of weights: convolutions over time have none."""
        return super().to(*args, **kwargs)

    def forward(self, x, timesteps, context=None, control=None, transformer_options={}, **kwargs):
        return comfy.patcher_extension.WrapperExecutor.new_class_executor(
            self._forward,
            self,
            comfy.patcher_extension.get_all_wrappers(
                comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, transformer_options
            ),
        ).execute(x, timesteps, context, control, transformer_options, **kwargs)

    def _forward(
        self,
        x,
        timesteps,
        context,
        control,
        transformer_options,
        clip_embeds,
        added_time_ids,
        audio_tokens,
        emotion_tokens,
        pose_features,
        face_mask,
        audio_scale=1.0,
        emotion_scale=1.0,
        **kwargs,
    ):
        def attention(query, key, value, heads):
            return optimized_attention(query, key, value, heads, transformer_options=transformer_options)

        batch, frames = audio_tokens.shape[:2]
        middle = transformer_options.get(_MIDDLE)
        predicted, *features = super().forward(
            x.unflatten(0, (batch, frames)),
            timesteps.unflatten(0, (batch, frames))[:, 0],
            encoder_hidden_states=clip_embeds,
            added_time_ids=added_time_ids,
            audio_tokens=audio_tokens,
            emotion_tokens=emotion_tokens,
            pose_features=pose_features,
            face_mask=face_mask,
            audio_scale=audio_scale,
            emotion_scale=emotion_scale,
            attention=attention,
            return_dict=False,
            mid_features=middle is not None,
            **transformer_options.get(_DEEP, {}),
        )
        if middle is not None:
            middle.copy_(features[0].float().mean((-2, -1)))
        return predicted.flatten(0, 1)


class DiceTalkModel(comfy.model_base.BaseModel):
    """EDM v-prediction over SVD's latents, sigma 0.002 to 700.

    Attributes:
        student: how it is sampled, if it is a `dicetalk.checkpoints.student.Student`'s.
    """

    student = None

    def __init__(self, model_config, device=None):
        super().__init__(
            model_config, comfy.model_base.ModelType.V_PREDICTION_EDM, device=device, unet_model=NativeUNet
        )

    def apply_model(self, x, t, transformer_options={}, **kwargs):
        """As `BaseModel.apply_model`; the guider names every row of a branch, and wrappers see one name per row.

        What the UNet takes from the cache of inner levels, and what it gives to it and to a watcher, are tensors, so
        that it compiles.
        """
        rows = [row for branch in transformer_options.get("uuids", ()) for row in branch]
        options = transformer_options | {"uuids": rows}
        watch, (cache, step) = options.pop(WATCH, None), options.pop(DEEP_CACHE, (None, 0))
        if watch is None and cache is None:
            return super().apply_model(x, t, transformer_options=options, **kwargs)
        frames, deep, middle = [(branch, frame) for _, branch, frame in rows], {}, None
        if cache is not None:
            options[_DEEP] = deep = deep_buffers(
                self.diffusion_model, cache, step, frames, x[0], self.get_dtype_inference()
            )
        if watch is not None and "deep" not in deep:  # which leaves the mid block out
            # Caches that other nodes hang on the MODEL may leave out the UNet, and what is here with it.
            channels = self.diffusion_model.config.block_out_channels[-1]
            options[_MIDDLE] = middle = x.new_full((len(frames), channels), math.nan, dtype=torch.float32)
        result = super().apply_model(x, t, transformer_options=options, **kwargs)
        if "deep_out" in deep:
            cache.put(frames, deep["deep_out"])
        if middle is not None:
            watch(middle, frames)
        return result

    def extra_conds(self, **kwargs):
        raise InputError(
            "A DICE-Talk MODEL needs a portrait, speech and an emotion besides noise, which this sampler cannot give: "
            "use the node DICE-Talk Sampler, or DICE-Talk Guider with SamplerCustomAdvanced."
        )

    @staticmethod
    def window_conds(conditions, branch, frames):
        """`Conditions` for one branch of a window, as ComfyUI's batching takes them."""
        inputs = conditions.branch(branch, frames)
        conds = {name: PerBranch(tensor) for name, tensor in inputs.items() if name != "concat_latent"}
        conds["c_concat"] = comfy.conds.CONDNoiseShape(inputs["concat_latent"][0])
        return conds


class DiceTalkModelConfig(comfy.supported_models_base.BASE):
    """What ComfyUI needs to know of the model before it is built; `unet_config` holds `DiceTalkUNet`'s arguments."""

    unet_extra_config: dict = {}
    latent_format = comfy.latent_formats.SD15
    sampling_settings = {"sigma_max": 700.0, "sigma_min": 0.002}
    # `dicetalk bench --repeats 0` counts activations of 0.46 by this measure at 256×256 and 384×384, 0.36 at 512×512
    # and 0.31 at 768×768 (3 × 25 frames, float16); the rest is for kernels' scratch memory. On an H200 real peaks of an
    # earlier build were 0.55 at 256×256, 0.41 at 512×512 and 768×768 (tests/tools/gpu.py).
    memory_usage_factor = 0.55

    def get_model(self, state_dict, prefix="", device=None):
        return DiceTalkModel(self, device=device)


def _with_diffusers_names(model_lora_keys_unet):
    """ComfyUI's list of the names that a LoRA may give to layers, with those of diffusers for this model.

    ComfyUI takes `lora_unet_down_blocks_0_…_to_q` (kohya) and `diffusion_model.down_blocks.0…to_q` for any model, but
    diffusers' own names only for the models in a table of its own, and has no place where another model could add some.
    """

    @functools.wraps(model_lora_keys_unet)
    def with_diffusers_names(model, key_map={}):
        key_map = model_lora_keys_unet(model, key_map)
        if isinstance(model, DiceTalkModel):
            for key in model.diffusion_model.state_dict():
                layer = key.removesuffix(".weight")
                of_processor = layer.replace(".to_out.0", ".to_out").replace(".to_", ".processor.to_")  # older releases
                for name in (layer, layer if ".processor." in layer else of_processor):
                    key_map |= {name: f"diffusion_model.{key}", f"unet.{name}": f"diffusion_model.{key}"}
        return key_map

    return with_diffusers_names


comfy.lora.model_lora_keys_unet = _with_diffusers_names(comfy.lora.model_lora_keys_unet)


def load_unet(path, model_options={}, disable_dynamic=False):
    """Load the UNet of a checkpoint.

    Args:
        path: unet.pth or unet.safetensors, as published or as ComfyUI's Save Model (ModelSave) writes it.
        model_options: ComfyUI's: "dtype" of the weights (ComfyUI's choice when absent), "fp8_optimizations".
        disable_dynamic: as ComfyUI asks of its loaders.

    Returns:
        A ModelPatcher.

    Raises:
        InputError: the file is not a DICE-Talk UNet, or a student's file beside it is damaged.
    """
    state_dict, sampling_settings = _read_unet(path)
    fitted_part("unet", state_dict, path)
    config = DiceTalkModelConfig(unet_config_from_state_dict(state_dict))
    config.sampling_settings = config.sampling_settings | sampling_settings

    load_device = comfy.model_management.get_torch_device()
    offload_device = comfy.model_management.unet_offload_device()
    supported = list(config.supported_inference_dtypes)
    dtype = model_options.get("dtype") or comfy.model_management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(state_dict),
        supported_dtypes=supported,
        weight_dtype=comfy.utils.weight_dtype(state_dict),
    )
    manual_cast = comfy.model_management.unet_manual_cast(dtype, load_device, supported)
    config.set_inference_dtype(dtype, manual_cast)
    config.optimizations["fp8"] = model_options.get("fp8_optimizations", False)

    model = config.get_model(state_dict)
    model.student = read_student(Path(path).parent)
    kind = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = kind(model, load_device=load_device, offload_device=offload_device)
    if not comfy.model_management.is_device_cpu(offload_device):
        model.to(offload_device)
    for name in state_dict:
        if name.endswith("mix_factor"):
            state_dict[name] = state_dict[name].float()
    model.load_model_weights(dict(state_dict), "", assign=patcher.is_dynamic())
    patcher.cached_patcher_init = (load_unet, (path, model_options))
    return patcher


def _read_unet(path):
    """Tensors by the UNet's names, and the sampling settings that ComfyUI's Save Model writes beside them."""
    tensors = read_state_dict(path, "unet")
    settings = {}
    for name in _SAVED_SETTINGS.keys() & tensors.keys():
        tensor = tensors.pop(name)
        settings[_SAVED_SETTINGS[name]] = value = (
            float(tensor) if tensor.numel() == 1 and tensor.is_floating_point() else math.nan
        )
        if not 0 < value < math.inf:
            raise InputError(
                f"{path} holds a setting {name} that is not one positive number: save the model again with Save Model, "
                "or take the published file."
            )
    return {name.removeprefix(_SAVED_PREFIX): tensor for name, tensor in tensors.items()}, settings
