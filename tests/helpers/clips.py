"""Reference clips to test with: faces made of action units, voices made of syllables, and files that hold them."""

import numpy as np

from dicetalk.reading.clip import BLENDSHAPES, SAMPLE_RATE, Clip, array_stream
from dicetalk.reading.face_actions import UNITS

FPS = 25


def face(**sides):
    """(52,) blendshapes: action units (AU12=0.5), or blendshapes by their names."""
    row = np.zeros(len(BLENDSHAPES), np.float32)
    for name, value in sides.items():
        for blendshape in UNITS[name.removeprefix("AU")] if name.startswith("AU") else (name,):
            row[BLENDSHAPES.index(blendshape)] = value
    return row


def prototype(units, strength):
    """(52,) blendshapes of action units such as "1 2 5"; "one side" is contempt's."""
    if units == "one side":
        return face(mouthDimpleLeft=strength)
    return face(**{f"AU{unit}": strength for unit in units.split()})


def film(*scenes, noise=0.02):
    """(frames, 52) of scenes (seconds, (52,) blendshapes, or None without a face), with some noise."""
    rows = [
        np.tile(np.full(len(BLENDSHAPES), np.nan) if row is None else row, (round(seconds * FPS), 1))
        for seconds, row in scenes
    ]
    rows = np.concatenate(rows).astype(np.float32)
    return rows + np.abs(np.random.default_rng(0).normal(0, noise, rows.shape)).astype(np.float32)


def face_clip(*scenes, **others):
    """A Clip of scenes, and whatever else it has."""
    return Clip(blendshapes=array_stream(film(*scenes), FPS), **others)


def voice(seconds=4.0, pitch=120.0, spread=2.0, rate=4.5, darkness=1.0):
    """(n,) speech-like sound at 16 kHz: harmonics of a wandering pitch in syllables, with pauses."""
    random = np.random.default_rng(3)
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    knots = np.arange(0, seconds + 1, 1 / rate)
    hertz = pitch * 2 ** (np.interp(time, knots, random.normal(0, spread, len(knots))) / 12)
    phase = 2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE
    tone = sum(np.sin(number * phase) / number**darkness * (number * hertz < 5000) for number in range(1, 30))
    syllables = 0.5 - 0.5 * np.cos(2 * np.pi * rate * time)
    speaking = (time % 2.0) < 1.6
    return (0.1 * tone * syllables * speaking + 1e-4 * random.standard_normal(len(time))).astype(np.float32)


def music(seconds=4.0):
    """(n,) chords at 16 kHz that sound on for half a second each."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    roots = 196 * 2 ** (np.array([0, 5, 7, 0, 9, 5, 7, 4])[(time / 0.5).astype(int) % 8] / 12)
    chord = sum(
        np.sin(2 * np.pi * roots * 2 ** (step / 12) * part * time) / part for step in (0, 4, 7) for part in (1, 2)
    )
    return (0.05 * chord).astype(np.float32)


def sound(*parts):
    """`Clip.audio` of (n,) arrays one after the other, handed out in pieces of uneven size."""
    samples = np.concatenate(parts)

    def stream():
        start = 0
        for size in (5, 100, 7000, 31000):
            yield samples[start : start + size]
            start += size
        yield samples[start:]

    return stream


def write_video(path, samples=None, seconds=1.0, fps=5, picture=None):
    """A small video file, with sound if (n,) 16 kHz samples are given; a grey picture by default."""
    import av
    from PIL import Image

    picture = picture or Image.new("RGB", (64, 48), "grey")
    with av.open(str(path), "w") as container:
        video = container.add_stream("h264", rate=fps)
        video.width, video.height, video.pix_fmt = *picture.size, "yuv420p"
        streams = [video]
        if samples is not None:
            streams.append(container.add_stream("aac", rate=SAMPLE_RATE))
        for _ in range(round(seconds * fps)):
            container.mux(video.encode(av.VideoFrame.from_image(picture)))
        if samples is not None:
            frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            frame.rate = SAMPLE_RATE
            container.mux(streams[1].encode(frame))
        for stream in streams:
            container.mux(stream.encode())
    return path
