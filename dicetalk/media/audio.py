"""Reading sound from any file that FFmpeg reads: as speech for the model, and as it is for the video."""

import math
import os

import av
import numpy as np

from ..emotion.options import LONGEST
from ..errors import InputError, reason
from ..memory import free_memory, require_memory
from ..model.audio import SAMPLE_RATE, SAMPLES_PER_FRAME, check_rate, num_frames
from .container import AAC_RATES, OTHER_RATE, check_is_file, open_media

_MINUTE = 60 * SAMPLE_RATE


def load_audio(path, start=0.0, length=None):
    """Read an audio file, or the first audio track of a video, as speech for the model.

    Channels are averaged to mono, and the sound is resampled to 16 kHz with soxr's HQ setting while it is decoded, so
    that only the result is ever held. Damaged packets are left out, as players do, unless most of the file is damaged.

    Args:
        path: audio or video file.
        start: where to start, in seconds.
        length: how much to read, in seconds; to the end if None or longer than what there is.

    Returns:
        (samples,) float32 array, 16 kHz.

    Raises:
        InputError: missing or damaged file, no audio track, a start past the end, times or a sampling rate that make no
            sense, or more sound than memory holds.
    """
    import av

    from .container import open_media

    path = os.fspath(path)
    if not 0 <= start <= LONGEST:
        raise InputError(f"The audio's start is {start} s: give 0 to {LONGEST:g} seconds.")
    if length is not None and not 0 < length <= LONGEST:
        raise InputError(f"The audio's length is {length} s: give more than 0 and at most {LONGEST:g} seconds.")
    check_is_file(path, "audio")
    try:
        container = open_media(path)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as audio or video ({reason(error)}): convert it, for instance to WAV or MP4."
        ) from error
    with container:
        if not container.streams.audio:
            raise InputError(f"{path} has no audio track: give a file that holds speech.")
        blocks = decode_mono(container, path)
        return _cut_and_resample(blocks, start, length, path)


def decode_mono(container, path):
    """Yields (rate, (samples,) float32 block) for every decoded piece of the container's first audio track.

    Raises:
        InputError: the track is damaged, or its sampling rate is none that sound has; names `path`.
    """
    import av

    stream = container.streams.audio[0]
    resampler = None
    decoded = damaged = 0
    try:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                damaged += 1
                continue
            for frame in frames:
                check_rate(frame.sample_rate, path)
                if resampler is None:
                    resampler = SteadyResampler(frame.layout, frame.sample_rate)
                    rate = frame.sample_rate
                for block in resampler.resample(frame):
                    decoded += 1
                    yield rate, block.mean(axis=0, dtype=np.float32)
    except InputError:
        raise
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"The audio track of {path} is damaged ({reason(error)}): export it again.") from error
    if damaged > decoded:
        raise InputError(
            f"The audio track of {path} is damaged ({damaged} of its {damaged + decoded} packets cannot be decoded): "
            "export it again."
        )


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
            import av

            self._source, self._resampler = source, av.AudioResampler(**self._target)
        # Interleaved, as PyAV reads planes that are not there when a planar frame has 8 channels or more.
        blocks = self._resampler.resample(frame)
        return [block.to_ndarray().reshape(block.samples, -1).T for block in blocks]


def _cut_and_resample(blocks, start, length, path):
    import soxr

    stream = None
    seen = held = checked = 0
    pieces = []
    for rate, block in blocks:
        if stream is None:
            stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
            first = round(start * rate)
            end = math.inf if length is None else first + round(length * rate)
        wanted = block[max(0, first - seen) : max(0, min(len(block), end - seen))]
        seen += len(block)
        if len(wanted):
            pieces.append(stream.resample_chunk(np.ascontiguousarray(wanted)))
            held += len(pieces[-1])
        if held >= checked + _MINUTE:
            _require_memory(held, path)
            checked = held
        if seen >= end:
            break
    if stream is None:
        raise InputError(f"The audio track of {path} holds no sound that can be decoded: export it again.")
    if seen <= first:
        raise InputError(
            f"The audio's start, {start:g} s, is past the end of {path}, which lasts {seen / rate:.2f} s: "
            "start earlier."
        )
    pieces.append(stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True))
    audio = np.concatenate(pieces)
    if length is not None:
        audio = audio[: max(1, round(length * SAMPLE_RATE))]
    if not np.isfinite(audio).all():
        raise InputError(f"The audio track of {path} holds samples that are not finite numbers: export it again.")
    return audio


def _require_memory(held, path):
    """InputError unless there is memory for so many samples, and for the whole that they are joined to."""
    require_memory(
        f"{path}, as far as it was read,",
        num_frames(held),
        2 * 4 * SAMPLES_PER_FRAME,
        free_memory("cpu") + 4 * held,
        lambda seconds: f"give {seconds} s of it at most (--length {seconds})",
    )


def read_sound(path, start=0.0):
    """The sound of a file as it is there, for a video that is made from it.

    Args:
        path: audio or video file; `dicetalk.media.audio.load_audio` checks whether it can be read.
        start: where to start, in seconds.

    Returns:
        The sample rate, and an iterator over (channels, samples) float32 blocks of one or two channels.
    """
    with open_media(path) as container:
        stream = container.streams.audio[0]
        rate = stream.rate if stream.rate in AAC_RATES else OTHER_RATE
        layout = "mono" if stream.channels == 1 else "stereo"
    return rate, _sound_blocks(path, round(start * rate), rate, layout)


def _sound_blocks(path, skip, rate, layout):
    from .audio import SteadyResampler  # which imports PyTorch

    resampler = SteadyResampler(layout, rate)
    with open_media(path) as container:
        for packet in container.demux(container.streams.audio[0]):
            try:
                frames = packet.decode()
            except av.error.FFmpegError:  # a damaged packet is left out, as `load_audio` does
                continue
            for frame in frames:
                for block in resampler.resample(frame):
                    if block.shape[1] > skip:
                        yield block[:, skip:]
                    skip = max(0, skip - block.shape[1])
