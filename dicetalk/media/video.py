"""Video files out of frames, H.264 and AAC in an MP4 by default; streaming, with FFmpeg through PyAV.

PyAV is used directly, as ComfyUI does: torchcodec's encoder takes all frames as one tensor and no sound, and imageio
writes no sound.
"""

import contextlib
import itertools
import json
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from ..errors import InputError
from ..files import write_errors, written_beside
from .container import AAC_RATES, OTHER_RATE, check_writable
from .pixels import as_pixels

OPUS_RATE = 48000
SUBTITLES = {"mp4": "mov_text", "mkv": "subrip", "webm": "webvtt"}
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
FORMATS = {"mp4": "mp4", "mkv": "matroska", "webm": "webm"}
ENCODERS = {"h264": "libx264", "av1": "libsvtav1"}
# FFmpeg's numbers for the matrix, the primaries and the transfer curve
COLORS = {"BT.709": (1, 1, 1), "sRGB": (1, 1, 13), "HDR": (9, 9, 18), "HDR PQ": (9, 9, 16)}
LIMITED_RANGE = 1
_THOUSANDTH = Fraction(1, 1000)  # of a second


@dataclass(frozen=True)
class Encoding:
    """How pictures and sound are stored.

    Attributes:
        container: "mp4", "mkv" or "webm"; the sound is AAC, in WebM Opus.
        codec: "h264" or "av1"; WebM takes AV1 alone.
        crf: quality, 0 (lossless) to 51 for H.264 and 63 for AV1; None for the encoder's default.
        bit_depth: 8 or 10.
        color: "BT.709"; "sRGB", the same with the transfer curve of sRGB; "HDR" (BT.2020, HLG) or "HDR PQ", for frames
            that are meant so.
    """

    container: str = "mp4"
    codec: str = "h264"
    crf: float | None = 17
    bit_depth: int = 8
    color: str = "BT.709"

    @property
    def pixel_format(self):
        return "yuv420p10le" if self.bit_depth > 8 else "yuv420p"

    @property
    def options(self):
        """The encoder's."""
        options = {} if self.crf is None else {"crf": f"{self.crf:g}"}
        if self.codec == "av1":
            return {"svtav1-params": "lossless=1"} if self.crf == 0 else options
        # The same frames always give the same file, which they otherwise do not, even on one machine.
        return options | {"x264-params": "cpu-independent=1"}


def write_video(path, frames, fps, audio=None, sample_rate=16000, metadata=None, encoding=Encoding(), subtitles=()):
    """Write a video while the frames arrive; nothing but the frame at hand is kept.

    The file is written under a temporary name beside `path` and renamed when it is complete, so `path` never holds
    half a video; on any exception, an interrupt included, the temporary file is removed.

    Args:
        path: the file to write; an existing one is replaced. Or an open binary file, which is left as it was on an
            exception.
        frames: iterable of (H, W, 3) arrays or PIL images, uint8 or float in 0..1, all of one even size.
        fps: frames per second, Fraction or float.
        audio: float array in -1..1, (samples,) or (channels, samples) with one, two or six channels, or an iterable of
            such blocks; it is cut, or filled with silence, to the length of the video. None for no sound.
        sample_rate: of the audio, in Hz.
        metadata: mapping of names to text; other values are stored as JSON. Read back by `read_metadata`.
        encoding: an `Encoding`.
        subtitles: cues in the order of their times, each with `start` and `end` in seconds and `text`, for a track that
            players can show; those that start after the last frame are left out. No track when empty.

    Returns:
        The number of frames written.

    Raises:
        InputError: no frames, frames of odd, changing or wrong size, or a file that cannot be written.
    """
    if not hasattr(path, "write"):
        path = Path(path)
        check_writable(path)
    if subtitles:
        require_subtitles()
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise InputError(f"There are no frames to write to {path}: is the speech shorter than one frame (80 ms)?")
    depth = encoding.bit_depth
    first = as_pixels(first, depth)
    height, width = first.shape[:2]
    if height % 2 or width % 2:
        raise InputError(f"Video needs an even width and height, and the frames are {width}×{height} pixels.")
    with _target(path) as target, _Pictures(target, path, width, height, fps, metadata, encoding) as video:
        sound = None if audio is None else _Sound(video.container, audio, sample_rate, encoding.container)
        lines = _Subtitles(video.container, subtitles, encoding.container) if subtitles else None
        count = 0
        for frame in itertools.chain([first], (as_pixels(frame, depth) for frame in frames)):
            if frame.shape[:2] != (height, width):
                raise InputError(
                    f"All frames of a video have one size: frame {count} is {frame.shape[1]}×{frame.shape[0]} pixels, "
                    f"the first one {width}×{height}."
                )
            with write_errors(path):
                video.add(frame, count)
                count += 1
                if sound:
                    sound.add_until(count / video.fps)
                if lines:
                    lines.add_until(count / video.fps)
        with write_errors(path):
            video.flush()
            if sound:
                sound.flush()
    return count


def require_subtitles():
    """InputError where the installed PyAV cannot write a track of text."""
    if not hasattr(av.container.OutputContainer, "add_mux_stream"):
        raise InputError(
            f"Subtitles in a video need PyAV 17 or newer, and {av.__version__} is installed: update it with "
            "`pip install -U av`, or leave the subtitles out."
        )


@contextlib.contextmanager
def _target(path):
    """What FFmpeg writes to."""
    if not hasattr(path, "write"):
        with written_beside(path) as temporary:
            yield os.path.abspath(temporary)  # FFmpeg would take 12:30.mp4 for an address
        return
    start = path.tell()
    try:
        yield path
    except BaseException:
        path.seek(start)
        path.truncate()
        raise


@contextlib.contextmanager
def _same_priority():
    """Keep the priority of this thread, and give it to those that are started meanwhile.

    Where it may, as root on Linux, SVT-AV1 makes its threads real-time ones, and the calling thread too, for good:
    whatever that computes or starts later then comes before all else on the machine, which can freeze.
    """
    threads = Path("/proc/self/task")
    if not (hasattr(os, "sched_setscheduler") and threads.is_dir()):
        yield
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    others = set(os.listdir(threads))
    try:
        yield
    finally:
        for thread in {"0", *os.listdir(threads)} - others:  # 0 is this one
            with contextlib.suppress(OSError):  # it has ended
                if os.sched_getscheduler(int(thread)) == os.SCHED_FIFO:
                    os.sched_setscheduler(int(thread), *before)


class _Pictures:
    """A container with one stream of pictures; closes itself, after an exception too."""

    def __init__(self, target, path, width, height, fps, metadata, encoding):
        self.path, self.encoding = path, encoding
        self.fps = Fraction(fps).limit_denominator(1001)
        options = {}
        if encoding.container == "mp4":
            # The index can move to the front only of a file, which is opened again for it.
            options["movflags"] = "use_metadata_tags" + ("+faststart" if isinstance(target, str) else "")
        with write_errors(path):
            self.container = av.open(target, "w", format=FORMATS[encoding.container], options=options)
            for name, value in (metadata or {}).items():
                self.container.metadata[name] = value if isinstance(value, str) else json.dumps(value)
            self.stream = self.container.add_stream(ENCODERS[encoding.codec], rate=self.fps, options=encoding.options)
            self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, encoding.pixel_format
            self.stream.codec_context.time_base = 1 / self.fps
            self._tag(self.stream.codec_context)

    def _tag(self, target):
        names = ("colorspace", "color_primaries", "color_trc", "color_range")
        for name, value in zip(names, (*COLORS[self.encoding.color], LIMITED_RANGE)):
            if hasattr(target, name):  # PyAV 16's frames have not all of them; its codec contexts have
                setattr(target, name, value)

    def __enter__(self):
        return self

    def add(self, frame, position):
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24" if frame.dtype == np.uint8 else "rgb48le").reformat(
            format=self.encoding.pixel_format,
            dst_colorspace=COLORS[self.encoding.color][0],
            dst_color_range=LIMITED_RANGE,
        )
        self._tag(picture)
        picture.pts, picture.time_base = position, 1 / self.fps
        with _same_priority() if position == 0 else contextlib.nullcontext():  # the first picture opens the encoder
            packets = self.stream.encode(picture)
        self.container.mux(packets)

    def flush(self):
        self.container.mux(self.stream.encode(None))

    def __exit__(self, kind, error, traceback):
        if kind is None:
            with write_errors(self.path):
                self.container.close()
        else:
            with contextlib.suppress(Exception):
                self.container.close()


class _Sound:
    """The AAC stream beside the pictures, fed as far as the pictures have come."""

    def __init__(self, container, audio, sample_rate, kind):
        self.blocks = map(_as_channels, [audio] if hasattr(audio, "shape") else audio)
        self.waiting = next(self.blocks, np.zeros((1, 0), np.float32))
        self.rate = int(sample_rate)
        self.layout = LAYOUTS[len(self.waiting)]
        self.container = container
        if kind == "webm":
            codec, rate = "libopus", OPUS_RATE
        else:
            codec, rate = "aac", self.rate if self.rate in AAC_RATES else OTHER_RATE
        self.stream = container.add_stream(codec, rate=rate, layout=self.layout)
        self.position = 0

    def add_until(self, seconds):
        end = round(seconds * self.rate)
        piece = self._take(end - self.position)
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=self.layout)
        frame.sample_rate, frame.pts, frame.time_base = self.rate, self.position, Fraction(1, self.rate)
        self.container.mux(self.stream.encode(frame))
        self.position = end

    def flush(self):
        self.container.mux(self.stream.encode(None))

    def _take(self, count):
        """The next samples, silence after the last ones."""
        while self.waiting.shape[1] < count:
            block = next(self.blocks, None)
            if block is None:
                block = np.zeros((len(self.waiting), count - self.waiting.shape[1]), np.float32)
            self.waiting = np.concatenate([self.waiting, block], axis=1)
        piece, self.waiting = self.waiting[:, :count], self.waiting[:, count:]
        return np.ascontiguousarray(piece)


class _Subtitles:
    """The track of subtitles, fed as far as the pictures have come.

    Text needs no encoder: in MP4 its length precedes it, in two bytes; in the others it is as it is.
    """

    def __init__(self, container, cues, kind):
        self.waiting = sorted(cues, key=lambda cue: cue.start)
        self.container, self.codec = container, SUBTITLES[kind]
        self.stream = container.add_mux_stream(self.codec, time_base=_THOUSANDTH)

    def add_until(self, seconds):
        while self.waiting and self.waiting[0].start < seconds:
            cue = self.waiting.pop(0)
            data = cue.text.encode()
            if self.codec == "mov_text":
                data = len(data).to_bytes(2, "big") + data
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.is_keyframe = self.stream, _THOUSANDTH, True
            packet.pts = packet.dts = round(cue.start * 1000)
            packet.duration = max(round(cue.end * 1000) - packet.pts, 1)
            self.container.mux(packet)


def _as_channels(audio):
    audio = np.atleast_2d(np.nan_to_num(np.asarray(audio, dtype=np.float32)))
    if audio.ndim != 2 or audio.shape[0] not in LAYOUTS:
        raise InputError(f"Sound of shape {audio.shape} cannot be written: one, two or six channels are possible.")
    return np.clip(audio, -1, 1)
