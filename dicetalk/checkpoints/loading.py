"""From a file of weights to a module, or one clear error that names what does not fit.

The configuration of every part is read off its tensors' shapes.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import InputError
from .finding import PART_TITLES, PARTS
from .tensors import Unreadable, read_tensors


def read_state_dict(path, part: str) -> dict[str, Tensor]:
    """Tensors of a part's file, as `read_tensors`; a prefix that all names share ("module.", "model.diffusion_model.",
    "diffusion_model.") is dropped.

    Args:
        path: the file.
        part: one of `PARTS`, for the error message.

    Raises:
        InputError: the file is none of weights, for one of the reasons of `Unreadable`.
    """
    try:
        return _without_prefix(read_tensors(path))
    except Unreadable as problem:
        raise _refused(path, part, problem) from None


def _refused(path, part, problem) -> InputError:
    return InputError(f"{path}, taken for {PART_TITLES[part]}, {problem}. {_remedy(part)}")


def _remedy(part) -> str:
    return (
        f"Put the published {part}.pth there: remove this file and run `python -m dicetalk download --only dice-talk`."
    )


def _without_prefix(tensors):
    for prefix in ("module.", "model.diffusion_model.", "diffusion_model."):
        if all(name.startswith(prefix) for name in tensors):
            return {name[len(prefix) :]: tensor for name, tensor in tensors.items()}
    return tensors


def check_state_dict(state_dict: Mapping[str, Tensor], expected: Mapping[str, tuple], path, part: str) -> None:
    """Refuse tensors that are not exactly those of a part.

    Args:
        state_dict: what `read_state_dict` gave.
        expected: name → shape of every tensor of the part.
        path: the file, for the error message.
        part: what it was taken for, one of `PARTS`.

    Raises:
        InputError: names the file, the part, the first few missing, unexpected and misshapen tensors, what the file
            seems to be instead, and what to do.
    """
    missing = [name for name in expected if name not in state_dict]
    unexpected = [name for name in state_dict if name not in expected]
    misshapen = [
        f"{name} ({_shape(state_dict[name].shape)} instead of {_shape(shape)})"
        for name, shape in expected.items()
        if name in state_dict and tuple(state_dict[name].shape) != tuple(shape)
    ]
    whole = [name for name, tensor in state_dict.items() if not tensor.is_floating_point()]
    faults = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen, "not of floating point": whole}
    if not any(faults.values()):
        return
    listed = "; ".join(f"{_first_few(names)} {kind}" for kind, names in faults.items() if names)
    kind = _kind(state_dict, part)
    problem = f"is {kind}: {listed}" if kind else f"does not fit: {listed}"
    raise _refused(path, part, problem)


def _shape(shape) -> str:
    return "×".join(map(str, shape)) or "a single number"


def _first_few(names, count=3) -> str:
    rest = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(name[:120] for name in names[:count]) + rest


def _kind(names, part) -> str | None:
    """What else a file with these tensor names is, if it is recognized."""

    def any_has(*fragments):
        return any(fragment in name.lower() for name in names for fragment in fragments)

    def any_starts(*prefixes):
        return any(name.startswith(prefixes) for name in names)

    if any_has("lora_", ".lora", "lokr_", "hada_"):
        return "a LoRA, which a LoRA loader adds to the model" if part == "unet" else "a LoRA"
    if any_starts("first_stage_model.", "conditioner.", "cond_stage_model."):
        return "a whole Stable (Video) Diffusion checkpoint, which belongs into models/checkpoints"
    if any_starts("input_blocks.", "output_blocks."):
        return "a UNet under Stability AI's names, not DICE-Talk's"
    if any_starts("down_blocks."):
        if not any_has("temporal"):
            return "the UNet or ControlNet of another model"
        if not any_has("attn2.processor."):
            return "a plain Stable Video Diffusion UNet, without DICE-Talk's audio and emotion adapters"
        own = "unet"
    elif any_starts("emo_linear.", "kv_tokens_linear.", "codebook."):
        own = "emo_model"
    elif any_starts("proj1.", "proj3."):
        own = "audio_linear"
    elif any_starts("blocks.") and any_starts("conv_out."):
        own = "pose_guider"
    elif any_starts("encoder.down_blocks.", "decoder.up_blocks.", "decoder.up."):
        return "a VAE"
    elif any_starts("vision_model.", "visual."):
        return "a CLIP vision model"
    elif any_starts("model.encoder.layers.", "encoder.layers."):
        return "a Whisper or other speech model"
    else:
        return None
    return None if own == part else f"{PART_TITLES[own]} ({own}.pth)"


class _Unfilled(TorchFunctionMode):
    """Leaves out the random numbers that PyTorch's layers begin with, which take half a second even on "meta"."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def build_part(part: str, state_dict: Mapping[str, Tensor]) -> nn.Module:
    """The module of a part, on the meta device, its configuration read off the tensors' shapes.

    Args:
        part: one of `PARTS`.
        state_dict: its tensors (on any device; only names and shapes are used).

    Raises:
        KeyError: a tensor that shows a size is missing. (`fitted_part` turns this into an InputError.)
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
    with torch.device("meta"), _Unfilled():
        if part == "unet":
            from ..model.unet import DiceTalkUNet, unet_config_from_state_dict

            return DiceTalkUNet(**unet_config_from_state_dict(state_dict))
        if part == "pose_guider":
            from ..model.pose_guider import PoseGuider

            stages = [name for name in ("conv_in", *(f"blocks.{i}" for i in range(1, len(shapes), 2)))]
            channels = [shapes[f"{name}.weight"][0] for name in stages if f"{name}.weight" in shapes]
            return PoseGuider(shapes["conv_out.weight"][0], tuple(channels))
        if part == "audio_linear":
            from ..model.audio import STATES, WINDOW, AudioProjection

            hidden, inputs = shapes["proj1.weight"]
            dim = shapes["norm.weight"][0]
            return AudioProjection(
                width=inputs // (WINDOW * STATES), hidden=hidden, tokens=shapes["proj3.weight"][0] // dim, dim=dim
            )
        if part == "emo_model":
            from ..model.emotion import EmotionModel

            return EmotionModel(**EmotionModel.config_from_state_dict(state_dict))
    raise ValueError(f"unknown part {part!r}; one of {', '.join(PARTS)}")


def _released_part(part: str) -> nn.Module:
    """The module of a part as released, on the meta device."""
    with torch.device("meta"), _Unfilled():
        if part == "unet":
            from ..model.unet import DiceTalkUNet as module
        elif part == "pose_guider":
            from ..model.pose_guider import PoseGuider as module
        elif part == "audio_linear":
            from ..model.audio import AudioProjection as module
        else:
            from ..model.emotion import EmotionModel as module
        return module()


def fitted_part(part: str, state_dict: Mapping[str, Tensor], path) -> nn.Module:
    """The module (on the meta device) that these tensors fit exactly; InputError as `check_state_dict` if none is."""
    try:
        module = build_part(part, state_dict)
    except Exception:  # names or shapes that no such part can have: compare with the released part to say which
        module = _released_part(part)
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    check_state_dict(state_dict, expected, path, part)
    return module


def unet_arguments(path) -> tuple[tuple[str, object], ...]:
    """(name, value) of the arguments of the UNet in a file, read off names and shapes; InputError if none fits."""
    from ..model.unet import unet_config_from_state_dict

    state_dict = read_state_dict(path, "unet")
    fitted_part("unet", state_dict, path)
    return tuple(unet_config_from_state_dict(state_dict).items())


def load_part(part: str, path, dtype: torch.dtype | None = None) -> nn.Module:
    """A part with the weights of a file, on the CPU, memory-mapped until it is moved or cast.

    Args:
        part: one of `PARTS`.
        path: its file, .pth or .safetensors.
        dtype: cast to this; None keeps what the file has.

    Returns:
        The module in evaluation mode, its parameters without gradients.

    Raises:
        InputError: as `read_state_dict` and `check_state_dict`.
    """
    state_dict = read_state_dict(path, part)
    module = fitted_part(part, state_dict, path)
    if dtype is not None:
        state_dict = {name: tensor.to(dtype) for name, tensor in state_dict.items()}
    module.load_state_dict(state_dict, assign=True)
    return module.eval().requires_grad_(False)
