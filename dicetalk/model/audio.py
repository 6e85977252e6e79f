"""Speech, as the UNet hears it: Whisper features in sliding windows, projected to 32 tokens per video frame.

A video frame lasts 80 ms (12.5 frames a second, 1280 samples at 16 kHz). Whisper's encoder gives 50 positions a
second; frame i sees positions 4i to 4i + 9 of a sequence that is padded with 4 zero positions before and 6 after.
"""

import torch
from torch import nn

from ..errors import InputError
from .placement import Placed

SAMPLE_RATE = 16000
SAMPLES_PER_FRAME = 1280
RATES = 1_000, 768_000  # Hz that are believed: at others a small file would fill the memory when it is resampled

WINDOW = 10
STATES = 5

_CHUNK_SAMPLES = 30 * SAMPLE_RATE
CHUNK_POSITIONS = 1500
_POSITIONS_PER_FRAME = 4
_POSITIONS_BEFORE = 4
_POSITIONS_AFTER = 6
_ROUNDING = 8  # samples


def num_frames(samples, published=False):
    """Number of video frames that `samples` samples of 16 kHz audio take.

    The last one may be filled up with silence, so that nothing spoken is lost. Half a millisecond more than whole
    frames, as resampling may leave, takes no further frame. With `published` the rest is dropped, as the published code
    does.
    """
    if published:
        return (samples // 640) // 2
    return max(-(-(samples - _ROUNDING) // SAMPLES_PER_FRAME), min(samples, 1))


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


def audio_features(encoder, waveform, on_chunk=None, device=None, dtype=None, published=False):
    """Run the Whisper encoder over speech and cut its hidden states into one window per video frame.

    Arguments and errors as for `feature_windows`, which needs no memory for the whole.

    Returns:
        (frames, 10, layers + 1, width) float32 tensor on the CPU.
    """
    return torch.cat(list(feature_windows(encoder, waveform, on_chunk, device, dtype, published)))


@torch.no_grad()
def feature_windows(encoder, waveform, on_chunk=None, device=None, dtype=None, published=False):
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
        published: drop what does not fill a frame, as the published code does; see `num_frames`.

    Yields:
        (n, 10, layers + 1, width) float32 tensors on the CPU, the next frames after each chunk. They are views of
        overlapping windows: do not write to them.

    Raises:
        InputError: not a (samples,) waveform, empty (as published: shorter than a frame, 80 ms), or not finite.
    """
    from transformers import WhisperFeatureExtractor

    waveform = torch.as_tensor(waveform).detach().to("cpu", torch.float32)
    if waveform.ndim != 1:
        raise InputError(f"The audio has shape {tuple(waveform.shape)}: mono audio of shape (samples,) is needed.")
    left = num_frames(len(waveform), published)
    if left == 0:
        raise InputError(
            f"The audio lasts {len(waveform) / SAMPLE_RATE:.3f} s, and one video frame 0.080 s: use a longer piece."
        )
    _check_finite(waveform)
    device = encoder.conv1.weight.device if device is None else device
    dtype = encoder.conv1.weight.dtype if dtype is None else dtype

    mel = WhisperFeatureExtractor(feature_size=encoder.config.num_mel_bins)
    positions = 2 * (len(waveform) // 640) if published else _POSITIONS_PER_FRAME * left
    total = -(-positions // CHUNK_POSITIONS)
    kinds = encoder.config.encoder_layers + 1, encoder.config.d_model
    held = torch.zeros(_POSITIONS_BEFORE, *kinds)  # positions that the next frames see
    for index in range(total):
        if on_chunk is not None:
            on_chunk(index, total)
        chunk = waveform[index * _CHUNK_SAMPLES : (index + 1) * _CHUNK_SAMPLES].numpy()
        features = mel(chunk, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        output = encoder(features.to(device, dtype), output_hidden_states=True, return_dict=True)
        states = torch.stack([*output.hidden_states[:-1], output.last_hidden_state], dim=2)[0]
        count = min(CHUNK_POSITIONS, positions - index * CHUNK_POSITIONS)
        after = torch.zeros(_POSITIONS_AFTER if index == total - 1 else 0, *kinds)
        held = torch.cat([held, states[:count].to("cpu", torch.float32), after])
        windows = held.unfold(0, WINDOW, _POSITIONS_PER_FRAME).permute(0, 3, 1, 2)[:left]
        yield windows
        left -= len(windows)
        held = held[_POSITIONS_PER_FRAME * len(windows) :]
    if on_chunk is not None:
        on_chunk(total, total)


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
