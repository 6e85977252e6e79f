"""From the channels of a recording to one for the model and one or two for the video: without loss, at a fair level.

The model hears what the video plays: both get the same channels, turned the same way, at the same gain.
"""

from dataclasses import dataclass

import numpy as np

from ..errors import InputError

_HALF = 0.5**0.5  # -3 dB
_INVERTED = -0.5  # correlation below which two channels are each other's inverse
_LOST = 1e-2  # of a channel's power: a mix that keeps less than that has lost it
_SURELY_WHOLE_NUMBERS = 64  # no peak of a recording in floating point is so far above full scale
_FULL_SCALES = {16: 2.0**15, 24: 2.0**23, 32: 2.0**31}
_AT_ONCE = 2**20  # samples
_SILENT = 1e-4  # of full scale, -80 dB: a microphone that is switched off
_QUIET = 1e-2  # -40 dB; the peaks of usual speech are at -12 to 0
_SAID_FROM = 1.05  # compressed sound overshoots by a little all the time
_USUAL = {6: ("FL", "FR", "FC", "LFE", "BL", "BR"), 8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR")}


@dataclass(frozen=True)
class Downmix:
    """What is done to a recording's channels, for model and video alike.

    Attributes:
        model: (channels,) weights of the one channel that the model hears.
        video: (1 or 2, channels) weights of those that the video plays.
        channels: (channels,) what each channel is multiplied by where all are kept.
        notes: sentences that a person should read: what was wrong with the recording, and what was done about it.
    """

    model: np.ndarray
    video: np.ndarray
    channels: np.ndarray
    notes: tuple[str, ...] = ()


class Levels:
    """How loud and how alike the channels of a recording are; takes it piece by piece, and keeps a small table.

    Attributes:
        peak: the largest sample's size.
        mixed_peak: that of the usual mix for a video.
        products: (channels, channels) sums of the channels' products, about their means, as a constant offset is no
            sound; None before there is sound.
    """

    def __init__(self, names=None):
        self.names, self.peak, self.mixed_peak, self._video = names, 0.0, 0.0, None
        self._products, self._sums, self._count = None, 0.0, 0

    @property
    def products(self):
        if self._products is None:
            return None
        return self._products - np.outer(self._sums, self._sums) / self._count

    def add(self, block):
        """A (channels, samples) block."""
        if not block.shape[1]:
            return
        if self._products is None:
            self._products, self._video = 0.0, usual_downmix(len(block), self.names).video.astype(np.float32)
        self.peak = max(self.peak, float(np.abs(block).max()))
        exact = block.astype(np.float64)
        self._products, self._sums = self._products + exact @ exact.T, self._sums + exact.sum(axis=1)
        self._count += block.shape[1]
        mixed = self.peak if len(block) < 3 else float(np.abs(self._video @ block).max())
        self.mixed_peak = max(self.mixed_peak, mixed)


def usual_downmix(channels, names=None):
    """The downmix for a recording of which nothing else is known.

    Stereo is kept, and averaged for the model. More channels are mixed to stereo as ITU-R BS.775 has it, the centre and
    the surround channels 3 dB down, the low-frequency effects left out; the model hears the sum of both sides, 3 dB
    down, so that a voice in the centre has its own level.

    Args:
        channels: how many there are.
        names: FFmpeg's, such as ("FL", "FR", "FC", "LFE", "BL", "BR"); None where they are not known.
    """
    if channels == 1:
        return Downmix(np.ones(1), np.ones((1, 1)), np.ones(1))
    if channels == 2:
        return Downmix(np.full(2, 0.5), np.eye(2), np.ones(2))
    names = names or _USUAL.get(channels)
    if names is None:
        return Downmix(np.full(channels, 1 / channels), np.full((2, channels), 1 / channels), np.ones(channels))
    video = np.array([_sides(name) for name in names]).T
    return Downmix(_HALF * video.sum(0), video, np.ones(channels))


def downmix_for(levels, what="The sound"):
    """The downmix for a recording whose levels are known.

    A channel that is the inverse of the strongest one (a microphone wired the wrong way) is turned around, as it would
    cancel the other. Where the usual weights lose the sound (it is all in the channel for low-frequency effects), the
    strongest channel is taken alone. Sound beyond full scale is turned down to it; sound on the scale of whole numbers
    is divided by their full scale.

    Args:
        levels: `Levels` of the whole piece.
        what: the recording, in the user's words, as the notes begin.

    Raises:
        InputError: numbers larger than any sound's, or not finite.
    """
    products, mixed_peak, notes = levels.products, levels.mixed_peak, []
    if not np.isfinite(products).all() or not np.isfinite(levels.peak):
        raise InputError(f"{what} holds samples that are not finite numbers (NaN or infinity): export it again.")
    usual = usual_downmix(len(products), levels.names)
    model, video, signs = usual.model, usual.video, usual.channels
    power = products.diagonal()
    strongest = int(power.argmax())
    if power[strongest] > 0:
        alike = products[strongest] / np.sqrt(np.maximum(power * power[strongest], 1e-300))
        signs = np.where(alike < _INVERTED, -1.0, 1.0)
        if (signs < 0).any():
            model, video = model * signs, video * signs
            mixed_peak = levels.peak * np.abs(video).sum(1).max()
            notes.append(f"{what} has channels that are each other's inverse and would cancel: {_turned(signs)}.")
        if model @ products @ model < _LOST * power[strongest]:
            model = np.eye(len(power))[strongest]
            video, mixed_peak = np.tile(model, (len(video), 1)), levels.peak
            notes.append(f"{what} is in channel {strongest + 1} alone, which was taken.")
    gain, note = full_scale(levels.peak, mixed_peak, what)
    return Downmix(model * gain, video * gain, signs * gain, (*notes, *note))


def of_waveform(waveform, what):
    """A recording that is a tensor: what the model hears, and what is kept of it for a video.

    Args:
        waveform: (channels, samples) tensor; whole numbers are on the scale of their type.
        what: the recording, in the user's words.

    Returns:
        (samples,) float32 tensor; (channels, samples) tensor, the given one where nothing was wrong with it; and notes.

    Raises:
        InputError: samples that no recording has.
    """
    import torch

    if not waveform.is_floating_point():
        middle = 0.0 if waveform.dtype.is_signed else 128.0
        waveform = (waveform.float() - middle) / 2.0 ** (8 * waveform.element_size() - 1)
    levels = Levels()
    for piece in waveform.detach().split(_AT_ONCE, dim=1):
        levels.add(piece.float().cpu().numpy())
    found = downmix_for(levels, what)
    weights = torch.from_numpy(found.model).to(waveform.device, torch.float32)
    mono = waveform[0].float() if len(waveform) == 1 else waveform.float().T @ weights
    if len(waveform) == 1 and weights[0] != 1:
        mono = mono * weights[0]
    if (found.channels != 1).any():
        waveform = waveform.float() * torch.from_numpy(found.channels[:, None]).to(waveform.device, torch.float32)
    return mono, waveform, found.notes


def full_scale(peak, mixed=None, what="The sound"):
    """(gain, notes) that scale sound with such a peak into -1 to 1.

    Args:
        peak: the recording's.
        mixed: that of its mix, where that is larger.

    Raises:
        InputError: a number larger than any sound's.
    """
    mixed = max(peak, mixed or 0.0)
    if peak > 2 * _FULL_SCALES[32]:
        raise InputError(f"{what} holds samples of up to {peak:.3g}, which no recording has: export it again.")
    if peak > _SURELY_WHOLE_NUMBERS:
        bits = next((bits for bits, scale in _FULL_SCALES.items() if peak <= scale), 32)
        note = f"{what} is on the scale of {bits}-bit whole numbers: divided by {_FULL_SCALES[bits]:.0f}."
        return 1 / max(_FULL_SCALES[bits], mixed), (note,)
    if mixed <= 1:
        return 1.0, ()
    note = f"{what} reaches {peak:.2f} times full scale: turned down by {20 * np.log10(peak):.1f} dB."
    return 1 / mixed, (note,) if peak > _SAID_FROM else ()


def quiet(peak, what="The sound"):
    """Notes on sound with such a peak that hardly anything of it is heard.

    Args:
        peak: of what the model hears.
        what: the recording, in the user's words.
    """
    if peak < _SILENT:
        return (f"{what} is silent, so that the portrait will hardly speak.",)
    if peak < _QUIET:
        return (f"{what} is very quiet (its peak is at {20 * np.log10(peak):.0f} dB): raise its level.",)
    return ()


def _sides(name):
    """(left, right) weights of a channel."""
    if name in ("FL", "DL"):
        return 1.0, 0.0
    if name in ("FR", "DR"):
        return 0.0, 1.0
    if name == "BC":
        return 0.5, 0.5
    if name.startswith("LFE"):
        return 0.0, 0.0
    if name.endswith(("L", "LC")):
        return _HALF, 0.0
    if name.endswith(("R", "RC")):
        return 0.0, _HALF
    return _HALF, _HALF


def _turned(signs):
    turned = [str(number + 1) for number in np.flatnonzero(signs < 0)]
    return f"channel {turned[0]} was turned around" if len(turned) == 1 else f"{', '.join(turned)} were turned around"
