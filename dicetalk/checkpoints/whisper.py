"""The Whisper encoder from its published folder (openai/whisper-tiny)."""

import json
from pathlib import Path

import torch

from ..errors import InputError, reason
from ..model.audio import CHUNK_POSITIONS, STATES

_WHISPER_SIZES = (
    "d_model",
    "encoder_layers",
    "encoder_attention_heads",
    "encoder_ffn_dim",
    "num_mel_bins",
    "max_source_positions",
    "activation_function",
    "scale_embedding",
)
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_ENCODER_PREFIXES = ("model.encoder.", "encoder.", "")


def load_whisper_encoder(folder, dtype=torch.float32):
    """Load the encoder of a Whisper model (DICE-Talk was trained with openai/whisper-tiny).

    Args:
        folder: a transformers model folder: config.json with model.safetensors or pytorch_model.bin (PyTorch's zip
            format only, read without running anything that a pickle asks for).
        dtype: precision of the weights; None keeps what the file has.

    Returns:
        transformers' `WhisperEncoder` on the CPU, in evaluation mode, without gradients.

    Raises:
        InputError: a file is missing, damaged, or not of a Whisper encoder with 4 layers.
    """
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    folder = Path(folder)
    config_path = folder / "config.json"
    described = _read_config(config_path)
    if described.get("model_type") != "whisper":
        raise InputError(
            f"{config_path} is of a {described.get('model_type')!r} model, not of Whisper: {_WHISPER_REMEDY}"
        )
    if described.get("encoder_layers") != STATES - 1:
        raise InputError(
            f"{config_path} describes a Whisper encoder with {described.get('encoder_layers')} layers, but DICE-Talk "
            f"listens through one with {STATES - 1}: {_WHISPER_REMEDY}"
        )
    if described.get("max_source_positions") != CHUNK_POSITIONS:
        raise InputError(
            f"{config_path} describes a Whisper encoder with {described.get('max_source_positions')} positions instead "
            f"of {CHUNK_POSITIONS} (30 s): {_WHISPER_REMEDY}"
        )
    try:
        # The sizes only: other settings could name attention kernels, which transformers would fetch and run.
        config = WhisperConfig(**{name: described[name] for name in _WHISPER_SIZES if name in described})
        with torch.device("meta"):
            encoder = WhisperEncoder(config)
    except Exception as error:  # transformers raises many kinds, by version, for values it cannot use
        raise InputError(
            f"{config_path} does not describe a usable Whisper model ({reason(error)}): {_WHISPER_REMEDY}"
        ) from error

    weights_path = next((folder / name for name in _WEIGHT_FILES if (folder / name).is_file()), None)
    if weights_path is None:
        raise InputError(f"{folder} holds neither {' nor '.join(_WEIGHT_FILES)}: {_WHISPER_REMEDY}")
    weights = _read_encoder_weights(weights_path)
    expected = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    problems = [f"{name} is missing" for name in expected if name not in weights]
    problems += [f"{name} is unexpected" for name in weights if name not in expected]
    problems += [
        f"{name} has shape {tuple(weights[name].shape)} instead of {shape}"
        for name, shape in expected.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    problems += [f"{name} is not of floating point" for name in weights if not weights[name].is_floating_point()]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise InputError(
            f"{weights_path} does not fit {config_path} ({'; '.join(problems[:3])}{more}): {_WHISPER_REMEDY}"
        )
    if dtype is not None:
        weights = {name: tensor.to(dtype) for name, tensor in weights.items()}
    encoder.load_state_dict(weights, assign=True)
    return encoder.eval().requires_grad_(False)


_WHISPER_REMEDY = "put the files of openai/whisper-tiny there (`python -m dicetalk download` fetches them)."


def _read_config(path):
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing: {_WHISPER_REMEDY}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({reason(error)}): {_WHISPER_REMEDY}") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} does not hold a configuration: {_WHISPER_REMEDY}")
    return config


def _read_encoder_weights(path):
    """The encoder's tensors in a Whisper weight file, under the encoder's own names."""
    from .tensors import Unreadable, read_tensors

    try:
        weights = read_tensors(path)
    except Unreadable as problem:
        raise InputError(f"{path}, taken for Whisper's weights, {problem}: {_WHISPER_REMEDY}") from None
    for prefix in _ENCODER_PREFIXES:
        if f"{prefix}conv1.weight" in weights:
            return {name[len(prefix) :]: tensor for name, tensor in weights.items() if name.startswith(prefix)}
    raise InputError(f"{path} holds no Whisper encoder: {_WHISPER_REMEDY}")
