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


_FORMANTS = np.array(  # of five vowels, in Hz
    [(730, 1090, 2440), (530, 1840, 2480), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240)]
)


def voice(seconds=4.0, pitch=120.0, spread=2.0, rate=4.5, darkness=1.0):
    """(n,) speech at 16 kHz, as a formant synthesizer makes it: pulses of a wandering pitch through the resonances of
    vowels that glide from syllable to syllable, hisses between them, and pauses. A speech detector takes it for speech.
    """
    from scipy.signal import lfilter

    random = np.random.default_rng(3)
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    knots = np.arange(0, seconds + 1, 1 / rate)
    hertz = pitch * 2 ** (np.interp(time, knots, random.normal(0, spread, len(knots))) / 12)
    pulses = np.diff(np.floor(np.cumsum(hertz) / SAMPLE_RATE), prepend=0)
    breath = lfilter([1], [1, -0.6], pulses) + 0.02 * random.standard_normal(len(time))
    source = lfilter([1, -0.2], [1, -min(0.97, 0.3 + 0.3 * darkness)], breath)
    vowels, states = _FORMANTS[random.integers(0, len(_FORMANTS), len(knots))], [np.zeros(2) for _ in range(3)]
    spoken = np.zeros(len(time))
    for start in range(0, len(time), 160):
        piece = source[start : start + 160]
        for number, width in enumerate((80, 100, 140)):
            formant, decay = np.interp(time[start], knots, vowels[:, number]), np.exp(-np.pi * width / SAMPLE_RATE)
            feedback = [1, -2 * decay * np.cos(2 * np.pi * formant / SAMPLE_RATE), decay**2]
            piece, states[number] = lfilter([sum(feedback)], feedback, piece, zi=states[number])
        spoken[start : start + 160] = piece
    beat, speaking = (time * rate) % 1, (time % 2.0) < 1.6
    spoken *= np.sqrt(np.maximum(np.sin(np.pi * beat / 0.75), 0)) * (beat < 0.75) * speaking
    hiss = lfilter([1, -0.95], [1], random.standard_normal(len(time))) * (0.8 < beat) * (beat < 0.97) * speaking
    made = 0.1 * spoken / np.sqrt(np.mean(spoken**2)) + 0.015 * hiss + 1e-4 * random.standard_normal(len(time))
    return made.astype(np.float32)


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


def write_timed(path, pictures=0.0, sound=None, steps=(0.1,) * 20, b_frames=0, gap=None, rate=48000, codec="aac"):
    """A video whose tracks start at these seconds; its first frame is black, and each one is brighter.

    Args:
        pictures, sound: when the tracks start; without `sound` there is none. It is a tone of two seconds.
        steps: seconds from each frame to the next; there are as many frames.
        gap: (start, end) in seconds of the sound that is left out, its packets too.
    """
    from fractions import Fraction

    import av

    with av.open(str(path), "w") as container:
        video = container.add_stream(
            "libx264", rate=round(1 / min(steps)), options={"bf": str(b_frames), "b_strategy": "0"}
        )
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        streams = [video]
        if sound is not None:
            streams.append(container.add_stream(codec, rate=rate, layout="mono"))
        seconds = pictures
        for number, step in enumerate(steps):
            picture = np.full((48, 64, 3), min(255, 2 * number), np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(1000 * seconds), Fraction(1, 1000)
            container.mux(video.encode(frame))
            seconds += step
        if sound is not None:
            tone = (0.3 * np.sin(2 * np.pi * 300 * np.arange(2 * rate) / rate)).astype(np.float32)
            for start in range(0, len(tone), 960):
                if gap is not None and gap[0] <= start / rate < gap[1]:
                    continue
                frame = av.AudioFrame.from_ndarray(tone[None, start : start + 960], format="fltp", layout="mono")
                frame.rate, frame.pts, frame.time_base = rate, round(sound * rate) + start, Fraction(1, rate)
                container.mux(streams[1].encode(frame))
        for stream in streams:
            container.mux(stream.encode())
    return path
