"""Reading sound from any file that FFmpeg reads, for model and video alike.

Everything is on the file's own time axis, which begins at the earliest of its sound and its pictures: where sound
begins later, or has gaps, there is silence.
"""

import contextlib
import math
import os
import re
from dataclasses import dataclass

import av
import numpy as np

from ..emotion.options import LONGEST
from ..errors import InputError, reason
from ..memory import free_memory, require_memory
from ..model.audio import SAMPLE_RATE, SAMPLES_PER_FRAME, check_rate, num_frames
from .clock import origin
from .container import AAC_RATES, OTHER_RATE, check_is_file, open_media, unreadable
from .downmix import Downmix, Levels, downmix_for, quiet, usual_downmix

_MINUTE = 60 * SAMPLE_RATE
_PROBE = 5.0  # seconds of sound that tell of a stream's channels, within the first minute
_AUDIBLE = 1e-3
_PREROLL = 1.0  # seconds that are decoded before what is wanted: codecs build on what came before
_WORTH_SKIPPING = 5.0  # seconds
_JITTER = 0.05  # seconds by which frames' times may be off without a gap being there
# Their packets carry no times: FFmpeg counts them, which is right from the beginning on only.
_UNTIMED = {"mp3", "aac", "ac3", "eac3", "dts", "amr", "loas", "tta", "wv", "flac"}
# FFmpeg's names of sound without a header, whose rate it makes up.
_RAW = re.compile(r"[suf]\d+([bl]e)?|alaw|mulaw|vidc")
_PROTECTED = {"drms", "aavd"}  # iTunes, Audible


@dataclass(frozen=True)
class Sound:
    """A piece of a file's sound.

    Attributes:
        path, start, length: the file, and the piece in seconds; a length of None is to the end.
        speech: (samples,) float32, mono, 16 kHz: what the model hears.
        downmix: how the channels were mixed.
        notes: sentences that a person should read.
    """

    path: str
    start: float
    length: float | None
    speech: np.ndarray
    downmix: Downmix
    notes: tuple[str, ...] = ()

    def for_video(self):
        """What the video plays; as `read_sound`."""
        return read_sound(self.path, self.start, self.length, self.downmix)

    def mono(self, rate):
        """What the model hears, at another rate in Hz: (samples,) float32."""
        return self._whole(self.downmix.model[None], rate)[0]

    def channels(self, rate):
        """Each channel on its own, (channels, samples) float32 at a rate in Hz, on the scale of `speech`."""
        return self._whole(np.diag(self.downmix.channels), rate)

    def _whole(self, weights, rate):
        return np.concatenate(list(_sound_blocks(self.path, self.start, self.length, weights, rate)), axis=1)


def load_audio(path, start=0.0, length=None):
    """The speech of `load_sound` alone: (samples,) float32 array, mono, 16 kHz."""
    return load_sound(path, start, length).speech


def load_sound(path, start=0.0, length=None):
    """Read an audio file, or the default audio track of a video, for the model and for the video.

    Channels are mixed as `dicetalk.media.downmix` says, and the sound is resampled to 16 kHz with soxr's HQ setting
    while it is decoded, so that only the result is ever held. Damaged packets are left out, as players do, unless most
    of the file is damaged.

    Args:
        path: audio or video file.
        start: where to start, in seconds.
        length: how much to read, in seconds; to the end if None or longer than what there is.

    Returns:
        A `Sound`.

    Raises:
        InputError: missing or damaged file, no audio track, a start past the end, times or a sampling rate that make no
            sense, samples that no recording has, or more sound than memory holds.
    """
    path = os.fspath(path)
    if not 0 <= start <= LONGEST:
        raise InputError(f"The audio's start is {start} s: give 0 to {LONGEST:g} seconds.")
    if length is not None and not 0 < length <= LONGEST:
        raise InputError(f"The audio's length is {length} s: give more than 0 and at most {LONGEST:g} seconds.")
    check_is_file(path, "audio")
    speech, levels, notes = _read(path, start, length)
    downmix = downmix_for(levels, f"The sound of {path}")
    usual = usual_downmix(len(downmix.model), levels.names).model
    gain = downmix.model @ usual / (usual @ usual)
    if not np.allclose(downmix.model, gain * usual):  # the usual one was the wrong one
        speech, *_ = _read(path, start, length, downmix.model)
    elif gain != 1:
        speech *= np.float32(gain)
    peak = float(np.abs(speech).max(initial=0.0))
    return Sound(path, start, length, speech, downmix, (*notes, *downmix.notes, *quiet(peak, f"The sound of {path}")))


def _read(path, start, length, weights=None):
    """(samples,) at 16 kHz, mixed by weights of the channels or by the usual ones; its `Levels`; and notes."""
    import soxr

    resampler, levels, held, checked, pieces = None, None, 0, 0, []
    with _opened(path) as container:
        stream, notes = _track(container, path)
        decoded = Decoded(container, stream, path, start, length)
        for block in decoded:
            if resampler is None:
                resampler = soxr.ResampleStream(decoded.rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
                levels = Levels(decoded.names)
                weights = usual_downmix(len(block), decoded.names).model if weights is None else weights
            levels.add(block)
            pieces.append(resampler.resample_chunk(_mixed(weights[None], block)[0]))
            held += len(pieces[-1])
            if held >= checked + _MINUTE:
                _require_memory(held, path)
                checked = held
    if resampler is None and decoded.reached is None:
        raise InputError(f"The audio track of {path} holds no sound that can be decoded: export it again.")
    if resampler is None:
        raise InputError(
            f"The audio's start, {start:g} s, is past the end of {path}, which lasts {decoded.reached:.2f} s: "
            "start earlier."
        )
    pieces.append(resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True))
    speech = np.concatenate(pieces)
    if length is not None:
        speech = speech[: max(1, round(length * SAMPLE_RATE))]
    return speech, levels, notes


def _require_memory(held, path):
    """InputError unless there is memory for so many samples, and for the whole that they are joined to."""
    require_memory(
        f"{path}, as far as it was read,",
        num_frames(held),
        2 * 4 * SAMPLES_PER_FRAME,
        free_memory("cpu") + 4 * held,
        lambda seconds: f"give {seconds} s of it at most (--length {seconds})",
    )


def read_sound(path, start=0.0, length=None, downmix=None):
    """The sound of a file for a video that is made from it, at the file's rate if AAC has it.

    Args:
        path, start, length: as in `load_sound`, which checks whether the file can be read.
        downmix: that of `load_sound`; None reads the whole piece again for it.

    Returns:
        The sample rate, and an iterator over (channels, samples) float32 blocks of one or two channels.
    """
    path = os.fspath(path)
    downmix = load_sound(path, start, length).downmix if downmix is None else downmix
    with _opened(path) as container:
        decoded = Decoded(container, _track(container, path)[0], path)
        next(iter(decoded))
    rate = decoded.rate if decoded.rate in AAC_RATES else OTHER_RATE
    return rate, _sound_blocks(path, start, length, downmix.video, rate)


def _sound_blocks(path, start, length, weights, rate):
    import soxr

    channels = len(weights)
    with _opened(path) as container:
        resampler, decoded = None, Decoded(container, _track(container, path)[0], path, start, length)
        for block in decoded:
            block = _mixed(weights, block)
            if decoded.rate == rate:
                yield block
                continue
            if resampler is None:
                resampler = soxr.ResampleStream(decoded.rate, rate, channels, dtype="float32", quality="HQ")
            yield _resampled(resampler, block)
        if resampler is not None:
            yield _resampled(resampler, np.zeros((channels, 0), np.float32), last=True)


def _resampled(resampler, block, last=False):
    samples = block.T if len(block) > 1 else block[0]
    return np.atleast_2d(resampler.resample_chunk(np.ascontiguousarray(samples), last=last).T)


def _mixed(weights, block):
    """(n, channels) weights, (channels, samples) block → (n, samples) float32."""
    return weights.astype(np.float32) @ block


def decode_mono(container, path):
    """Yields (rate, (samples,) float32 block) for the pieces of the container's default audio track.

    The first one begins where the file does. Channels are mixed as in `load_sound`, by what the first five audible
    seconds show.

    Raises:
        InputError: the track is damaged, or its sampling rate is none that sound has; names `path`.
    """
    decoded = Decoded(container, _track(container, path)[0], path)
    waiting, audible, held, weights = [], 0, 0, None

    def decided():
        levels = Levels(decoded.names)
        for block in waiting:
            levels.add(block)
        return downmix_for(levels, f"The sound of {path}").model[None]

    for block in decoded:
        block = np.nan_to_num(block, posinf=0.0, neginf=0.0)
        if weights is None:
            waiting.append(block)
            held += block.shape[1]
            audible += block.shape[1] * bool(np.abs(block).max(initial=0) > _AUDIBLE)
            if audible < _PROBE * decoded.rate and held < 60 * decoded.rate:
                continue
            weights = decided()
            yield from ((decoded.rate, _mixed(weights, block)[0]) for block in waiting)
            waiting = []
        else:
            yield decoded.rate, _mixed(weights, block)[0]
    if waiting:
        weights = decided()
        yield from ((decoded.rate, _mixed(weights, block)[0]) for block in waiting)


@contextlib.contextmanager
def _opened(path):
    try:
        container = open_media(path)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        why, remedy = unreadable(path, error)
        raise InputError(f"{path} cannot be read as audio or video ({why}): {remedy}.") from error
    with container:
        yield container


def _track(container, path):
    """The audio track that players play, and what is to be said about it."""
    tracks = container.streams.audio
    if not tracks:
        raise InputError(f"{path} has no audio track: give a file that holds speech.")
    if _RAW.fullmatch(container.format.name):
        raise InputError(
            f"{path} is sound without a header, so that its rate and its channels are not known: convert it to WAV, "
            f"for instance by `ffmpeg -f s16le -ar 16000 -ac 1 -i {os.path.basename(path)} speech.wav`."
        )
    known = [track for track in tracks if track.codec_context is not None]
    if not known:
        raise InputError(
            f"The sound of {path} is of a kind that FFmpeg cannot decode: play it where it was made, and export it as "
            "WAV or AAC."
        )
    if known[0].codec_context.codec_tag in _PROTECTED:
        raise InputError(f"The sound of {path} is protected against copying (DRM): give a file that is not.")
    chosen = next((track for track in known if track.disposition & av.stream.Disposition.default), known[0])
    if len(tracks) == 1:
        return chosen, ()
    number = [track.index for track in tracks].index(chosen.index) + 1
    return chosen, (f"{path} has {len(tracks)} audio tracks: number {number}, which players play, was taken.",)


class Decoded:
    """The (channels, samples) float32 blocks of a track without a gap between them, for one iteration.

    The first one begins at `start`, the last one ends after `length`, or with the track. What comes long before the
    start is not decoded.

    Args:
        container, stream: PyAV's, newly opened.
        path: the file, in the user's words.
        start, length: the piece, in seconds on the file's time axis; a length of None is to the end.

    Attributes:
        rate: in Hz, once there is a block.
        names: of the channels, as in `dicetalk.media.downmix.usual_downmix`.
        reached: how far the track was read, in seconds; None where nothing was decoded.

    Raises:
        InputError: the track is damaged, or its sampling rate is none that sound has.
    """

    def __init__(self, container, stream, path, start=0.0, length=None):
        self.rate = self.names = self.reached = None
        self._container, self._stream, self._path, self._start, self._length = container, stream, path, start, length

    def __iter__(self):
        expected = cursor = None  # the samples where the next frame, and the next block, should begin
        for seconds, block in self._frames():
            if cursor is None:
                cursor = round(self._start * self.rate)
                end = math.inf if self._length is None else cursor + max(1, round(self._length * self.rate))
            at = (expected or 0) if seconds is None else round(seconds * self.rate)
            if expected is not None and at - expected <= _JITTER * self.rate:
                at = expected
            while at > cursor < end:
                silence = int(min(at - cursor, self.rate, end - cursor))
                yield np.zeros((len(block), silence), np.float32)
                cursor += silence
            expected = at + block.shape[1]
            self.reached = max(self.reached or 0.0, expected / self.rate)
            piece = block[:, max(0, cursor - at) : int(max(0, min(block.shape[1], end - at)))]
            if piece.shape[1]:
                yield piece
                cursor = at + min(block.shape[1], end - at)
            if cursor >= end:
                return

    def _frames(self):
        """(seconds from the file's beginning, None where the file does not say; (channels, samples) float32)."""
        resampler, begins, skipped_until = None, 0.0, -math.inf
        decoded = damaged = 0
        packets = self._container.demux(self._stream)
        try:
            while (packet := next(packets, None)) is not None:
                if packet.pts is not None and packet.size:
                    ends = float((packet.pts + (packet.duration or 0)) * packet.time_base) - begins
                    if ends < skipped_until:
                        self.reached = ends
                        continue
                try:
                    frames = packet.decode()
                except av.error.FFmpegError:
                    damaged += 1
                    continue
                for frame in frames:
                    check_rate(frame.sample_rate, self._path)
                    if resampler is None:
                        resampler = SteadyResampler(frame.layout, frame.sample_rate)
                        self.rate, self.names = frame.sample_rate, _channel_names(frame.layout)
                        begins = origin(self._container)
                        if self._start > _WORTH_SKIPPING:
                            skipped_until = self._start - _PREROLL
                            packets = self._skipped_to(begins + skipped_until, packets)
                    seconds = None if frame.time is None else max(frame.time - begins, 0.0)
                    for block in resampler.resample(frame):
                        decoded += 1
                        yield seconds, block
                        seconds = None
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise InputError(
                f"The audio track of {self._path} is damaged ({reason(error)}): export it again."
            ) from error
        if damaged > decoded:
            raise InputError(
                f"The audio track of {self._path} is damaged ({damaged} of its {damaged + decoded} packets cannot be "
                "decoded): export it again."
            )

    def _skipped_to(self, seconds, packets):
        """Packets from before that time on; or those that were there, to be counted."""
        self._stream.codec_context.flush_buffers()
        if _UNTIMED.isdisjoint(self._container.format.name.split(",")):
            with contextlib.suppress(av.error.FFmpegError, OSError):
                self._container.seek(int(seconds / self._stream.time_base), stream=self._stream)
                self.reached = (self._container.duration or 0) / 1e6  # if nothing comes any more
                return self._container.demux(self._stream)
        return packets


def _channel_names(layout):
    names = tuple(channel.name for channel in layout.channels)
    return None if any(name in ("NONE", "UNK", "") for name in names) else names


class SteadyResampler:
    """Frames as float arrays of one layout and rate, also where these change within a file.

    PyAV's own resampler passes every frame on as it is once the first one fitted.
    """

    def __init__(self, layout, rate):
        self._target = {"format": "flt", "layout": layout, "rate": rate}
        self._source = self._resampler = None

    def resample(self, frame):
        """A list of (channels, samples) float32 arrays."""
        source = frame.format.name, frame.layout.name, frame.sample_rate
        if source != self._source:
            self._source, self._resampler = source, av.AudioResampler(**self._target)
        # Interleaved, as PyAV reads planes that are not there when a planar frame has 8 channels or more.
        blocks = self._resampler.resample(frame)
        return [block.to_ndarray().reshape(block.samples, -1).T for block in blocks]
