"""The pictures and the sound of a file as streams that hold a short piece at a time."""

import math

import numpy as np

from ..errors import InputError
from ..media.clock import origin, video_track
from ..media.frames import picture_of
from .clip import FRAME_RATES, SAMPLE_RATE


def look_into(path):
    """What a path or an open file holds: frames a second (None without pictures), seconds (None where it does not say),
    and whether there is sound."""
    with _opened(path) as container:
        video, audio = video_track(container), container.streams.audio
        if video is None and not audio:
            raise InputError(
                f"{_label(path)} holds neither pictures nor sound: give a video, a sound file or a picture."
            )
        rate = float(video.average_rate or video.guessed_rate or 25) if video is not None else None
        return rate, container.duration / 1e6 if container.duration else None, bool(audio)


def _opened(source):
    import av

    from ..media.container import open_media, unreadable

    if hasattr(source, "seek"):
        source.seek(0)
    try:
        return open_media(source)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        why, remedy = unreadable(source, error)
        raise InputError(f"{_label(source)} cannot be read as video, sound or picture ({why}): {remedy}.") from error


def _label(source):
    return "The video" if hasattr(source, "read") else source


def stream_frames(source, every=0.0, start=0.0, length=math.inf):
    """Yields (seconds, (height, width, 3) uint8 RGB) of a video's frames, as `dicetalk.media.frames.picture_of`.

    Args:
        source: a path or an open file.
        every: least seconds from one frame to the next.
        start, length: the part to read, in seconds on the file's time axis; times count from its start.

    Times are the frames' own, on the axis of `dicetalk.media.clock.origin`, and increase. Where the file says none (raw
    H.264) or they do not increase (B-frames in AVI), a frame is one of the average rate after the one before.

    Raises:
        InputError: the video is damaged; single frames that are do not matter.
    """
    with _opened_at(source, start) as container:
        stream = video_track(container)
        stream.thread_type = "AUTO"
        began = origin(container)
        clock = due = -math.inf
        for frame in _decoded(container, stream, source):
            own = frame.time - began if frame.time is not None else -math.inf
            clock = own if own > clock + 1e-6 else max(clock + 1 / _rate(stream), 0.0)
            seconds = clock - start
            if seconds >= length:
                return
            if seconds >= max(due, -1e-6):
                due = seconds + every - 1e-6
                yield max(seconds, 0.0), picture_of(frame, stream)


def frame_times(source, start=0.0, length=math.inf):
    """(frames,) seconds of a video's frames, as `stream_frames` gives them, mostly without decoding any."""
    with _opened(source) as container:
        stream = video_track(container)
        stamps = [
            packet.pts for packet in container.demux(stream) if packet.size and not getattr(packet, "is_discard", False)
        ]
        began = origin(container)
        if stamps and None not in stamps and "avi" not in container.format.name:
            seconds = np.sort(np.array([float(stamp * stream.time_base) for stamp in stamps])) - began - start
            if (np.diff(seconds) > 1e-6).all():
                return np.maximum(seconds[(seconds >= -1e-6) & (seconds < length)], 0.0)
    return np.array([seconds for seconds, _ in stream_frames(source, start=start, length=length)])


def _opened_at(source, start):
    """A container with pictures, at `start` seconds or before; at its beginning where it cannot seek (raw H.264)."""
    import av

    container = _opened(source)
    stream = video_track(container)
    try:
        if start > 0:
            container.seek(int((start + origin(container)) / stream.time_base), stream=stream)
        return container
    except (av.error.FFmpegError, OSError):
        container.close()
        return _opened(source)


def _rate(stream):
    """A video track's frames a second, for frames without times; 25 where it says none, or what cannot be."""
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    return rate if FRAME_RATES[0] <= rate <= FRAME_RATES[1] else 25.0


def _decoded(container, stream, source):
    import av

    good = damaged = 0
    try:
        for packet in container.demux(stream):
            try:
                for frame in packet.decode():
                    good += 1
                    yield frame
            except av.error.FFmpegError:
                damaged += 1
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{_label(source)} is damaged ({reason}): export it again.") from error
    if damaged > good:
        raise InputError(f"{_label(source)} is damaged ({damaged} of its pieces cannot be decoded): export it again.")


def stream_audio(source, start=0.0, length=math.inf):
    """Yields (n,) float32 pieces of the first sound track, mono at 16 kHz; the rest is as in `stream_frames`."""
    import soxr

    from ..media.audio import decode_mono

    resample, seen = None, 0
    with _opened(source) as container:
        for rate, block in decode_mono(container, _label(source)):
            if resample is None:
                resample = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
                first, end = round(start * rate), (start + length) * rate
            piece = block[max(0, first - seen) : int(max(0, min(len(block), end - seen)))]
            seen += len(block)
            if len(piece):
                yield resample.resample_chunk(np.ascontiguousarray(np.nan_to_num(piece, posinf=0.0, neginf=0.0)))
            if seen >= end:
                break
    if resample is not None:
        yield resample.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
