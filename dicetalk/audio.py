"""Speech, as the UNet hears it: Whisper features in sliding windows, projected to 32 tokens per video frame.

A video frame lasts 80 ms (12.5 frames a second, 1280 samples at 16 kHz). Whisper's encoder gives 50 positions a
second; frame i sees positions 4i to 4i + 9 of a sequence that is padded with 4 zero positions before and 6 after.
"""

import json
from pathlib import Path

import torch
from torch import nn

from .errors import InputError
from .placement import Placed

SAMPLE_RATE = 16000
SAMPLES_PER_FRAME = 1280
RATES = 1_000, 768_000  # Hz that are believed: at others a small file would fill the memory when it is resampled
FPS = 12.5

WINDOW = 10
STATES = 5

_CHUNK_SAMPLES = 30 * SAMPLE_RATE
_CHUNK_POSITIONS = 1500
_POSITIONS_PER_FRAME = 4
_POSITIONS_BEFORE = 4
_POSITIONS_AFTER = 6
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


def num_frames(samples):
    """Number of video frames that `samples` samples of 16 kHz audio give."""
    return (samples // 640) // 2


def resample(waveform, rate):
    """Mix to mono (mean of the channels) and resample to 16 kHz with soxr's HQ setting.

    Args:
        waveform: (channels, samples) or (samples,) float tensor or array.
        rate: sampling rate of `waveform` in Hz.

    Returns:
        (samples,) float32 tensor on the CPU.

    Raises:
        InputError: empty, of another shape, or not a finite number somewhere; a rate that no sound has.
    """
    waveform = torch.as_tensor(waveform).detach().to("cpu", torch.float32)
    if waveform.ndim not in (1, 2) or waveform.numel() == 0:
        raise InputError(
            f"The audio has shape {tuple(waveform.shape)}: (channels, samples) or (samples,) is needed, and at least "
            "one sample."
        )
    check_rate(rate, "the audio")
    _check_finite(waveform)
    mono = waveform if waveform.ndim == 1 else waveform.mean(dim=0)
    if rate == SAMPLE_RATE:
        return mono.contiguous()
    import soxr

    return torch.from_numpy(soxr.resample(mono.numpy(), rate, SAMPLE_RATE, quality="HQ"))


def check_rate(rate, what):
    """InputError unless a sampling rate is one of `RATES`; `what` has it, in the user's words."""
    if not RATES[0] <= rate <= RATES[1]:
        raise InputError(
            f"The sampling rate of {what} is {rate} Hz, and {RATES[0]} to {RATES[1]} Hz are taken: export it again at "
            "its true rate."
        )


def _check_finite(waveform):
    if not torch.isfinite(waveform).all():
        raise InputError(
            "The audio holds samples that are not finite numbers (NaN or infinity): use another recording."
        )


def audio_features(encoder, waveform, on_chunk=None, device=None, dtype=None):
    """Run the Whisper encoder over speech and cut its hidden states into one window per video frame.

    Arguments and errors as for `feature_windows`, which needs no memory for the whole.

    Returns:
        (frames, 10, layers + 1, width) float32 tensor on the CPU.
    """
    return torch.cat(list(feature_windows(encoder, waveform, on_chunk, device, dtype)))


@torch.no_grad()
def feature_windows(encoder, waveform, on_chunk=None, device=None, dtype=None):
    """Run the Whisper encoder over speech and cut its hidden states into one window per video frame, piece by piece.

    Chunks of 30 s are encoded one at a time, each padded to 30 s. All hidden states (the embedding and every layer,
    the last one after the final layer norm) are kept.

    Args:
        encoder: transformers' `WhisperEncoder`, as `load_whisper_encoder` gives it.
        waveform: (samples,) mono 16 kHz float tensor or array.
        on_chunk: called as `on_chunk(done, total)` before each chunk, and with done = total at the end; may raise to
            cancel.
        device, dtype: where and in which precision the encoder computes; by default as its first convolution's weight
            is.

    Yields:
        (n, 10, layers + 1, width) float32 tensors on the CPU, the next frames after each chunk. They are views of
        overlapping windows: do not write to them.

    Raises:
        InputError: not a (samples,) waveform, shorter than one frame (80 ms), or not finite.
    """
    from transformers import WhisperFeatureExtractor

    waveform = torch.as_tensor(waveform).detach().to("cpu", torch.float32)
    if waveform.ndim != 1:
        raise InputError(f"The audio has shape {tuple(waveform.shape)}: mono audio of shape (samples,) is needed.")
    left = num_frames(len(waveform))
    if left == 0:
        raise InputError(
            f"The audio lasts {len(waveform) / SAMPLE_RATE:.3f} s, and one video frame 0.080 s: use a longer piece."
        )
    _check_finite(waveform)
    device = encoder.conv1.weight.device if device is None else device
    dtype = encoder.conv1.weight.dtype if dtype is None else dtype

    mel = WhisperFeatureExtractor(feature_size=encoder.config.num_mel_bins)
    positions = 2 * (len(waveform) // 640)
    total = -(-positions // _CHUNK_POSITIONS)
    kinds = encoder.config.encoder_layers + 1, encoder.config.d_model
    held = torch.zeros(_POSITIONS_BEFORE, *kinds)  # positions that the next frames see
    for index in range(total):
        if on_chunk is not None:
            on_chunk(index, total)
        chunk = waveform[index * _CHUNK_SAMPLES : (index + 1) * _CHUNK_SAMPLES].numpy()
        features = mel(chunk, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        output = encoder(features.to(device, dtype), output_hidden_states=True, return_dict=True)
        states = torch.stack([*output.hidden_states[:-1], output.last_hidden_state], dim=2)[0]
        count = min(_CHUNK_POSITIONS, positions - index * _CHUNK_POSITIONS)
        after = torch.zeros(_POSITIONS_AFTER if index == total - 1 else 0, *kinds)
        held = torch.cat([held, states[:count].to("cpu", torch.float32), after])
        windows = held.unfold(0, WINDOW, _POSITIONS_PER_FRAME).permute(0, 3, 1, 2)[:left]
        yield windows
        left -= len(windows)
        held = held[_POSITIONS_PER_FRAME * len(windows) :]
    if on_chunk is not None:
        on_chunk(total, total)


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
    if described.get("max_source_positions") != _CHUNK_POSITIONS:
        raise InputError(
            f"{config_path} describes a Whisper encoder with {described.get('max_source_positions')} positions instead "
            f"of {_CHUNK_POSITIONS} (30 s): {_WHISPER_REMEDY}"
        )
    try:
        # The sizes only: other settings could name attention kernels, which transformers would fetch and run.
        config = WhisperConfig(**{name: described[name] for name in _WHISPER_SIZES if name in described})
        with torch.device("meta"):
            encoder = WhisperEncoder(config)
    except Exception as error:  # transformers raises many kinds, by version, for values it cannot use
        raise InputError(
            f"{config_path} does not describe a usable Whisper model ({_one_line(error)}): {_WHISPER_REMEDY}"
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


def _one_line(error):
    return " ".join(str(error).split())[:200]


def _read_config(path):
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing: {_WHISPER_REMEDY}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({_one_line(error)}): {_WHISPER_REMEDY}") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} does not hold a configuration: {_WHISPER_REMEDY}")
    return config


def _read_encoder_weights(path):
    """The encoder's tensors in a Whisper weight file, under the encoder's own names."""
    from .checkpoints import Unreadable, read_tensors

    try:
        weights = read_tensors(path)
    except Unreadable as problem:
        raise InputError(f"{path}, taken for Whisper's weights, {problem}: {_WHISPER_REMEDY}") from None
    for prefix in _ENCODER_PREFIXES:
        if f"{prefix}conv1.weight" in weights:
            return {name[len(prefix) :]: tensor for name, tensor in weights.items() if name.startswith(prefix)}
    raise InputError(f"{path} holds no Whisper encoder: {_WHISPER_REMEDY}")


class AudioProjection(Placed, nn.Module):
    """Maps each frame's window of Whisper states to tokens for the UNet's audio attention.

    Its tensors are named and shaped as in the published file audio_linear.pth.

    Args:
        window: positions per frame.
        layers: hidden states per position.
        width: Whisper's width.
        hidden: width of the two hidden layers.
        tokens: tokens per frame.
        dim: width of a token.
    """

    def __init__(self, window=WINDOW, layers=STATES, width=384, hidden=1024, tokens=32, dim=1024):
        super().__init__()
        self.window, self.layers, self.width, self.tokens, self.dim = window, layers, width, tokens, dim
        self.proj1 = nn.Linear(window * layers * width, hidden)
        self.proj2 = nn.Linear(hidden, hidden)
        self.proj3 = nn.Linear(hidden, tokens * dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, windows):
        """(frames, window, layers, width) → (frames, tokens, dim). Raises InputError for other sizes."""
        expected = (self.window, self.layers, self.width)
        if windows.ndim != 4 or tuple(windows.shape[1:]) != expected:
            raise InputError(
                f"The audio features have shape {tuple(windows.shape)}, but audio_linear takes "
                f"(frames, {', '.join(map(str, expected))}): use the Whisper model and the audio_linear file that "
                "belong together."
            )
        x = torch.relu(self.proj1(windows.flatten(1)))
        x = torch.relu(self.proj2(x))
        return self.norm(self.proj3(x).unflatten(1, (self.tokens, self.dim)))

    def unconditional(self, device=None, dtype=None):
        """Tokens of an all-zero window, (1, tokens, dim); on `device` in `dtype`, by default those of the weights."""
        device = self.proj1.weight.device if device is None else device
        dtype = self.proj1.weight.dtype if dtype is None else dtype
        return self(torch.zeros(1, self.window, self.layers, self.width, device=device, dtype=dtype))
