"""Whisper from its published folder (openai/whisper-tiny): its encoder, or all of it, which can place words."""

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
_DECODER_SIZES = (
    "decoder_layers",
    "decoder_attention_heads",
    "decoder_ffn_dim",
    "vocab_size",
    "max_target_positions",
)
TOKENIZER_FILE = "tokenizer.json"
_CONFIG = "config.json"
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_PREFIXES = {"conv1.weight": ("model.encoder.", "encoder.", ""), "decoder.embed_tokens.weight": ("model.", "")}


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
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    folder = Path(folder)
    described = _read_config(folder / _CONFIG)
    if described.get("encoder_layers") != STATES - 1:
        raise InputError(
            f"{folder / _CONFIG} describes a Whisper encoder with {described.get('encoder_layers')} layers, but "
            f"DICE-Talk listens through one with {STATES - 1}: {_WHISPER_REMEDY}"
        )
    encoder = _built(folder, described, _WHISPER_SIZES, WhisperEncoder)
    return _filled(encoder, folder, "encoder", "conv1.weight", dtype)


def load_whisper_model(folder):
    """Load Whisper's encoder and decoder, which place words by the decoder's attention; float32.

    Args:
        folder: as for `load_whisper_encoder`.

    Returns:
        transformers' `WhisperModel` on the CPU, in evaluation mode, without gradients, whose attentions can be read.

    Raises:
        InputError: a file is missing, damaged, or not of a whole Whisper model.
    """
    from transformers.models.whisper.modeling_whisper import WhisperModel

    folder = Path(folder)
    described = _read_config(folder / _CONFIG)
    # Only the plain kernel gives its attentions. The numbers of special tokens have no part in it.
    special = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0)
    plain = {"attn_implementation": "eager", **special}
    model = _built(folder, described, (*_WHISPER_SIZES, *_DECODER_SIZES), WhisperModel, **plain)
    return _filled(model, folder, "decoder", "decoder.embed_tokens.weight", torch.float32)


def tokenizer_remedy(folder):
    """What to do about a missing or unusable tokenizer.json of a Whisper folder, wherever that is."""
    return (
        f"put that file of openai/whisper-tiny there, or run `python -m dicetalk download --only words --output "
        f"{Path(folder).parent}`."
    )


def _built(folder, described, names, kind, **settings):
    from transformers import WhisperConfig

    if described.get("max_source_positions") != CHUNK_POSITIONS:
        raise InputError(
            f"{folder / _CONFIG} describes a Whisper encoder with {described.get('max_source_positions')} positions "
            f"instead of {CHUNK_POSITIONS} (30 s): {_WHISPER_REMEDY}"
        )
    try:
        # The sizes only: other settings could name attention kernels, which transformers would fetch and run.
        config = WhisperConfig(**{name: described[name] for name in names if name in described}, **settings)
        with torch.device("meta"):
            return kind(config)
    except Exception as error:  # transformers raises many kinds, by version, for values it cannot use
        raise InputError(
            f"{folder / _CONFIG} does not describe a usable Whisper model ({reason(error)}): {_WHISPER_REMEDY}"
        ) from error


def _filled(module, folder, what, first, dtype):
    """The module with its weights out of the folder's file; `first` is the name of one of them."""
    path = next((folder / name for name in _WEIGHT_FILES if (folder / name).is_file()), None)
    if path is None:
        raise InputError(f"{folder} holds neither {' nor '.join(_WEIGHT_FILES)}: {_WHISPER_REMEDY}")
    weights = _read_weights(path, what, first)
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
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
        raise InputError(f"{path} does not fit {folder / _CONFIG} ({'; '.join(problems[:3])}{more}): {_WHISPER_REMEDY}")
    if dtype is not None:
        weights = {name: tensor.to(dtype) for name, tensor in weights.items()}
    module.load_state_dict(weights, assign=True)
    return module.eval().requires_grad_(False)


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
    if config.get("model_type") != "whisper":
        raise InputError(f"{path} is of a {config.get('model_type')!r} model, not of Whisper: {_WHISPER_REMEDY}")
    return config


def _read_weights(path, what, first):
    """The tensors of Whisper, or of its encoder, in a weight file, under the module's own names."""
    from .tensors import Unreadable, read_tensors

    try:
        weights = read_tensors(path)
    except Unreadable as problem:
        raise InputError(f"{path}, taken for Whisper's weights, {problem}: {_WHISPER_REMEDY}") from None
    weights.pop("proj_out.weight", None)  # the embeddings of the tokens again
    for prefix in _PREFIXES[first]:
        if f"{prefix}{first}" in weights:
            return {name[len(prefix) :]: tensor for name, tensor in weights.items() if name.startswith(prefix)}
    raise InputError(f"{path} holds no Whisper {what}: {_WHISPER_REMEDY}")
