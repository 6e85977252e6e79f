"""Video files out of frames, H.264 and AAC in an MP4 unless told otherwise, and frame doubling; streaming, with FFmpeg
through PyAV."""

import contextlib
import errno
import itertools
import json
import os
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from .errors import InputError
from .files import write_errors, write_problem, written_beside

AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
OTHER_RATE = 48000  # for what AAC does not have
OPUS_RATE = 48000
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
FORMATS = {"mp4": "mp4", "mkv": "matroska", "webm": "webm"}
ENCODERS = {"h264": "libx264", "av1": "libsvtav1"}
# FFmpeg's numbers for the matrix, the primaries and the transfer curve
COLORS = {"BT.709": (1, 1, 1), "sRGB": (1, 1, 13), "HDR": (9, 9, 18), "HDR PQ": (9, 9, 16)}
LIMITED_RANGE = 1
SMALLEST_SIDE = 32  # what FFmpeg's minterpolate takes
# Tags need not be UTF-8. PyAV 19 keeps whatever they are, and no longer has the option.
_ANY_TAGS = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


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


def write_video(path, frames, fps, audio=None, sample_rate=16000, metadata=None, encoding=Encoding()):
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

    Returns:
        The number of frames written.

    Raises:
        InputError: no frames, frames of odd, changing or wrong size, or a file that cannot be written.
    """
    if not hasattr(path, "write"):
        path = Path(path)
        check_writable(path)
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise InputError(f"There are no frames to write to {path}: is the speech shorter than one frame (80 ms)?")
    depth = encoding.bit_depth
    first = _as_pixels(first, depth)
    height, width = first.shape[:2]
    if height % 2 or width % 2:
        raise InputError(f"Video needs an even width and height, and the frames are {width}×{height} pixels.")
    with _target(path) as target, _Pictures(target, path, width, height, fps, metadata, encoding) as video:
        sound = None if audio is None else _Sound(video.container, audio, sample_rate, encoding.container)
        count = 0
        for frame in itertools.chain([first], (_as_pixels(frame, depth) for frame in frames)):
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
        with write_errors(path):
            video.flush()
            if sound:
                sound.flush()
    return count


def double_frame_rate(frames):
    """Put one motion-compensated frame between every two: N frames become 2N - 1, for twice the frame rate.

    FFmpeg's `minterpolate` finds the motion. The frames at even positions are the given ones, unchanged. Streams:
    three frames are held at a time.

    Args:
        frames: iterable of (H, W, 3) arrays or PIL images, uint8 or float in 0..1, all of one size, no side under 32.

    Yields:
        uint8 (H, W, 3) arrays.

    Raises:
        InputError: frames of changing or too small a size.
    """
    frames = map(_as_uint8, frames)
    current = next(frames, None)
    if current is None:
        return
    interpolator = _Interpolator(*current.shape[:2])
    interpolator.push(current)
    waiting = [current]
    for frame in frames:
        if frame.shape != current.shape:
            raise InputError(
                f"All frames of a video have one size: got {frame.shape[1]}×{frame.shape[0]} pixels after "
                f"{current.shape[1]}×{current.shape[0]}."
            )
        interpolator.push(frame)
        waiting.append(frame)
        while (between := interpolator.pull()) is not None:
            yield waiting.pop(0)
            yield between
    # minterpolate looks one frame ahead and drops the end: the last frame once more makes it finish the last pair.
    interpolator.push(waiting[-1])
    interpolator.push(None)
    while len(waiting) > 1:
        between = interpolator.pull()
        if between is None:
            raise RuntimeError("FFmpeg's minterpolate filter returned fewer frames than expected.")
        yield waiting.pop(0)
        yield between
    yield waiting.pop()


def open_media(source):
    """PyAV's container of a sound, picture or video file.

    Args:
        source: a path, or an object that reads bytes.

    Raises:
        av.error.FFmpegError, OSError, ValueError: it cannot be opened, or is of no format that FFmpeg knows.
    """
    return av.open(source if hasattr(source, "read") else os.path.abspath(source), **_ANY_TAGS)


def read_sound(path, start=0.0):
    """The sound of a file as it is there, for a video that is made from it.

    Args:
        path: audio or video file; `dicetalk.media.load_audio` tells whether it can be read.
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
    from .media import SteadyResampler  # which brings PyTorch

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


def read_metadata(path):
    """The metadata of a video file as a dict of text."""
    with av.open(os.path.abspath(path)) as container:
        return dict(container.metadata)


def check_writable(path, suffix=""):
    """Raise InputError if a file at `path` could not be written.

    That is: missing folder, folder in its place, no permission, a name that is too long while it is being written.

    Args:
        path: the file.
        suffix: of the name of a file that is kept beside it.
    """
    path = Path(path)
    folder = path.parent
    if path.is_dir():
        raise InputError(f"The output {path} is a folder: name a file, for instance {path / 'talking.mp4'}.")
    if not folder.is_dir():
        raise InputError(f"The output folder {folder} does not exist: create it or write elsewhere.")
    try:
        # The longest name is that of what becomes it, see `written_beside`; 4194304 is Linux's longest process number,
        # so that a name that will do in one run will do in the next.
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{path.name}{suffix}.4194304-", suffix=".part"):
            pass
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"The name of the output {path.name} is too long: choose a shorter one.") from error
        raise InputError(f"The output folder {folder} cannot be written to: {write_problem(error)}.") from error


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
    whatever that computes or starts later then comes before all else on the machine, which can stand still for it.
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
            # The index can move to the front only of a file, which is opened once more for it.
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


class _Interpolator:
    """FFmpeg's minterpolate on one stream of frames; `pull` gives the frames between, in order."""

    def __init__(self, height, width):
        if min(height, width) < SMALLEST_SIDE:
            raise InputError(
                f"Frames of {width}×{height} pixels are too small to double the frame rate: "
                f"{SMALLEST_SIDE} pixels a side are needed."
            )
        self.graph = av.filter.Graph()
        source = self.graph.add(
            "buffer", f"video_size={width}x{height}:pix_fmt=yuv444p:time_base=1/1:frame_rate=1/1:pixel_aspect=1/1"
        )
        # No scene detection: it would repeat a frame where the picture changes a lot. Measured on a moving face, the
        # default bilateral search comes nearer to the true frame between than the slower bidirectional one.
        doubler = self.graph.add("minterpolate", "fps=2:mi_mode=mci:mc_mode=aobmc:scd=none")
        sink = self.graph.add("buffersink")
        source.link_to(doubler)
        doubler.link_to(sink)
        self.graph.configure()
        self.position = 0

    def push(self, frame):
        if frame is not None:
            frame = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv444p")
            frame.pts, frame.time_base = self.position, Fraction(1)
            self.position += 1
        self.graph.push(frame)

    def pull(self):
        """The next frame between two given ones, None when the filter needs more input."""
        while True:
            try:
                frame = self.graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return None
            if frame.pts % 2:
                return frame.to_ndarray(format="rgb24")


def _as_channels(audio):
    audio = np.atleast_2d(np.nan_to_num(np.asarray(audio, dtype=np.float32)))
    if audio.ndim != 2 or audio.shape[0] not in LAYOUTS:
        raise InputError(f"Sound of shape {audio.shape} cannot be written: one, two or six channels are possible.")
    return np.clip(audio, -1, 1)


def _as_uint8(frame):
    return _as_pixels(frame, 8)


def _as_pixels(frame, bit_depth):
    """uint8, or uint16 for more than 8 bits, of the full range."""
    frame = np.asarray(frame)
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise InputError(f"A frame has the shape (height, width, 3), and this one {frame.shape}.")
    if bit_depth > 8:
        if frame.dtype == np.uint8:
            frame = frame / np.float32(255)
        frame = (_unit(frame) * 65535).round().astype(np.uint16)
    elif frame.dtype != np.uint8:
        frame = (_unit(frame) * 255).round().astype(np.uint8)
    return np.ascontiguousarray(frame)


def _unit(frame):
    return np.clip(np.nan_to_num(frame.astype(np.float32)), 0, 1)
