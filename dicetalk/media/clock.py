"""The one time axis of a file's pictures and sound: it begins with the earliest of them."""

import av

_PRIMING = 0.2  # seconds before a file's zero by which encoders of sound prime their decoders; it is never played


def video_track(container):
    """The first video track that is no cover picture of a sound file; None where there is none."""
    cover = av.stream.Disposition.attached_pic
    return next((stream for stream in container.streams.video if not stream.disposition & cover), None)


def origin(container):
    """Where a file's time axis begins, in seconds on FFmpeg's clock: `frame.time - origin(container)` is on it.

    That is the start of the earliest of its pictures and sound tracks, 0 where the file does not say. A sound track
    that begins just before 0 begins at 0: what is before is the encoder's priming, which players leave out.

    Args:
        container: PyAV's, open.
    """
    starts = [_start(stream) for stream in (video_track(container), *container.streams.audio) if stream is not None]
    return min((start for start in starts if start is not None), default=0.0)


def offset(stream):
    """How long after the file's beginning a track starts, in seconds, 0 or more."""
    start = _start(stream)
    return 0.0 if start is None else max(0.0, start - origin(stream.container))


def _start(stream):
    """When a track starts on FFmpeg's clock, in seconds; None where the file does not say."""
    if stream.start_time is None or stream.time_base is None:
        return None
    start = float(stream.start_time * stream.time_base)
    return 0.0 if stream.type == "audio" and -_PRIMING <= start < 0 else start
