"""Dialogues, and videos that are made again, of drawn people: from files to a video, as the commands make them.

People and sentences are held out, as in `goals`; what the video shows is read by the reader of drawn people.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..drawn import Take
from ..drawn.face import face_box
from ..drawn.files import wav, write_take
from ..drawn.speech import SAMPLE_RATE
from ..drawn.splits import sentences
from ..emotion.options import FPS, NAMES
from ..job import DENOISE, Job
from ..media.image import save_png
from ..media.portrait import face_crop
from ..model.audio import SAMPLES_PER_FRAME
from ..rendering import render
from .drawn_clips import Sampling, correlation
from .goals import PAIRS, SHOWN, Row, crowd_of, speech
from .head import HeadReader
from .reader import DrawnReader, of_clip

DENOISES = (0.4, DENOISE, 0.7, 1.0)
_LARGER = 2  # the pictures and videos that are given have so many times the model's pixels
_MARGIN = 0.5  # around a face in the dialogue's picture: a person's crop is nearly the whole drawing


@dataclass(frozen=True)
class Scenes:
    """How scenes are made and read.

    Attributes:
        checkpoint: name or folder of the weights.
        reader: DrawnReader.
        folder: where the files go.
        render_dialogue: `dicetalk.batch.dialogue.render_dialogue`, or what takes its place.
        sampling: of it steps and scales count.
        size: pixels of a side of a person's crop, a multiple of 64.
        frames: of a clip at most.
        seed: of the noise.
        device: as a Job's.
    """

    checkpoint: str
    reader: DrawnReader
    folder: Path
    render_dialogue: Callable
    sampling: Sampling = Sampling()
    size: int = 64
    frames: int = 25
    seed: int = 0
    device: str | None = None

    @property
    def side(self):
        """Pixels of a side of a drawing that is given."""
        return _LARGER * self.size

    def job(self, name, **fields):
        """A Job that writes NAME.mp4."""
        settings = {"checkpoint": self.checkpoint, "size": self.size, "fps": "12.5", "device": self.device}
        settings |= {"steps": self.sampling.steps, "reference_scale": self.sampling.reference_scale}
        settings |= {"emotion_scale": self.sampling.emotion_scale, "seed": self.seed}
        return Job.of(settings | {"output": self.folder / f"{name}.mp4"} | fields)

    def sound_file(self, name, sound):
        path = self.folder / f"{name}.wav"
        path.write_bytes(wav(sound))
        return path


# Dialogues


@dataclass(frozen=True)
class Heard:
    """A person of a dialogue, read off the video.

    Attributes:
        mouth: (frames,) as `DrawnReader.read`.
        emotion: the one that was asked for.
        named: the one that is read.
        own, other: (frames,) opening of the lips by the person's own track, and by the other one's.
    """

    mouth: np.ndarray
    emotion: str
    named: str
    own: np.ndarray
    other: np.ndarray

    @property
    def follows(self):
        """Correlation of the mouth with the own track."""
        return correlation(self.mouth, self.own)

    @property
    def follows_other(self):
        """Correlation of the mouth with the other one's track."""
        return correlation(self.mouth, self.other)


def measure_dialogue(scenes: Scenes, total=4, on_result=None) -> list[Row]:
    """Two people in one picture, who speak at once, and who speak in turns.

    Args:
        scenes: Scenes.
        total: people; an odd one is left out, and there are two at least.
        on_result: called as `on_result(done, total)`, for each video.
    """
    crowd, done = crowd_of(max(total // 2 * 2, 2)), 0
    at_once: list[Heard] = []
    in_turns: list[Heard] = []
    drawn: list[Heard] = []
    for place in range(len(crowd) // 2):
        takes = pair_of_takes(crowd[2 * place : 2 * place + 2], place, scenes.frames)
        drawn += drawn_pair(scenes, takes)
        for make, results in ((speak_at_once, at_once), (speak_in_turns, in_turns)):
            results += make(scenes, takes)
            done += 1
            if on_result is not None:
                on_result(done, len(crowd))
    return [
        *_mouth_rows("two speak at once", at_once, drawn),
        *_mouth_rows("two speak in turns", in_turns),
        _listening_row(in_turns),
        _emotion_row([*at_once, *in_turns]),
    ]


def pair_of_takes(two, place, frames) -> list[Take]:
    """Each person's take, in an emotion of their own."""
    first, second = PAIRS[place % len(PAIRS)]
    one = speech(two[0], first, place)
    return [one, least_alike(one, two[1], second, frames)]


def least_alike(take, person, emotion, frames) -> Take:
    """Of the person's held-out takes of another sentence, the one whose track has least in common with a take's: short
    tracks correlate by chance, and a mouth that followed one would follow the other too."""
    every = [speech(person, emotion, place) for place in range(len(sentences("held-out")))]

    def alike(other):
        count = min(len(take), len(other), frames)
        return abs(correlation(take.opening[:count], other.opening[:count]))

    return min((other for other in every if other.sentence != take.sentence), key=alike)


def speak_at_once(scenes: Scenes, takes) -> list[Heard]:
    """Both speak from the start, each with a recording of their own."""
    count = min(*map(len, takes), scenes.frames)
    name = _name("at_once", takes)
    audios = [
        scenes.sound_file(f"{name}_{number}", take.sound[: count * SAMPLES_PER_FRAME])
        for number, take in enumerate(takes, 1)
    ]
    tracks = [take.opening[:count] for take in takes]
    return _heard(scenes, name, takes, tracks, audios)


def speak_in_turns(scenes: Scenes, takes) -> list[Heard]:
    """The first speaks for half of the time, then the second; one recording of both, with marked turns."""
    count = min(*map(len, takes), scenes.frames // 2)
    name, silence = _name("in_turns", takes), np.zeros(count)
    sounds = [take.sound[: count * SAMPLES_PER_FRAME] for take in takes]
    audio = scenes.sound_file(name, np.concatenate(sounds))
    one, two = (take.opening[:count] for take in takes)
    tracks = [np.concatenate([one, silence]), np.concatenate([silence, two])]
    turns = f"0s 1; {count * SAMPLES_PER_FRAME / SAMPLE_RATE:g}s 2"
    return _heard(scenes, name, takes, tracks, [audio], turns)


def drawn_pair(scenes: Scenes, takes) -> list[Heard]:
    """The drawn takes themselves, who speak at once: what a perfect video would get."""
    count = min(*map(len, takes), scenes.frames)
    tracks = [take.opening[:count] for take in takes]
    clips = [np.stack([take.frame(number, scenes.side) for number in range(count)]) for take in takes]
    return [_read(scenes, *each) for each in zip(clips, takes, tracks, reversed(tracks), strict=True)]


def _name(what, takes):
    return f"dialogue_{what}_{'_'.join(str(take.person.number) for take in takes)}"


def _heard(scenes, name, takes, tracks, audios, turns=""):
    side = scenes.side
    picture = scenes.folder / f"{name}.png"
    save_png(Image.fromarray(np.concatenate([take.portrait(side) for take in takes], axis=1)), picture)
    boxes = [
        np.array(face_box(take.person, size=side)) + (side * place, 0, side * place, 0)
        for place, take in enumerate(takes)
    ]
    job = scenes.job(name, portrait=picture, audio=audios[0], margin=_MARGIN)
    emotions = [take.emotion for take in takes]
    faces = "; ".join(",".join(f"{value:.2f}" for value in box) for box in boxes)
    scenes.render_dialogue(job, emotions, audios, turns, faces, say=lambda text: None)
    frames = frames_of(job.output)
    heard = []
    for box, take, own, other in zip(boxes, takes, tracks, reversed(tracks), strict=True):
        left, top, right, bottom = face_crop(box, (frames.shape[2], frames.shape[1]), _MARGIN)
        heard.append(_read(scenes, frames[:, top:bottom, left:right], take, own, other))
    return heard


def _read(scenes, frames, take, own, other):
    read = scenes.reader.read(frames)
    named = NAMES[int(of_clip(read)["emotion"].argmax())]
    return Heard(read["mouth"][: len(own)], take.emotion, named, own, other)


def _mouth_rows(what, heard, drawn=()):
    rows = []
    for whose, goal, met, value in (
        ("its own track", "≥ 0.70", lambda mean: mean >= 0.7, lambda each: each.follows),
        ("the other one's track", "≤ 0.20", lambda mean: mean <= 0.2, lambda each: each.follows_other),
    ):
        every = [value(each) for each in heard]
        mean = float(np.mean(every))
        rows.append(
            Row(
                f"{what}: mouth against {whose}, correlation",
                f"{mean:.2f} ({', '.join(f'{each:.2f}' for each in every)})",
                goal,
                met(mean),
                len(heard),
                f"{np.mean([value(each) for each in drawn]):.2f}" if drawn else "",
                {"correlation": mean, "each": every},
            )
        )
    return rows


def _listening_row(heard):
    """How far the mouth of those who listen is open, as a share of what it is while they speak."""
    half = [len(each.own) // 2 for each in heard]
    first = [bool(each.own[:at].any()) for each, at in zip(heard, half)]
    parts = [(each.mouth[:at], each.mouth[at:]) for each, at in zip(heard, half)]
    speaking = np.mean([(before if speaks else after).mean() for (before, after), speaks in zip(parts, first)])
    listening = np.mean([(after if speaks else before).mean() for (before, after), speaks in zip(parts, first)])
    return Row(
        "two speak in turns: opening of the mouth while listening, and while speaking",
        f"{listening:.2f}, {speaking:.2f}",
        clips=len(heard),
        numbers={"listening": float(listening), "speaking": float(speaking)},
    )


def _emotion_row(heard):
    right = [each.named == each.emotion for each in heard]
    return Row(
        "emotion of each person",
        f"{np.mean(right):.0%} ({sum(right)} of {len(right)})",
        clips=len(heard),
        numbers={"accuracy": float(np.mean(right)), "each": [[each.emotion, each.named] for each in heard]},
    )


# Videos that are made again


@dataclass(frozen=True)
class Again:
    """A video that was made again, beside the one it was made from.

    Attributes:
        changed: whether it is read as the emotion that was asked for.
        share: mean probability of that emotion over its frames.
        mouth, head: correlation of mouth and head (mean of sideways and up) with those of the first video.
        speech: correlation of the mouth with the opening of the lips by the speech that it got.
    """

    changed: bool
    share: float
    mouth: float
    head: float
    speech: float


def measure_react(scenes: Scenes, total=4, denoises=DENOISES, on_result=None) -> list[Row]:
    """Drawn videos of neutral people, made again with another emotion, and with another sentence.

    Args:
        scenes: Scenes.
        total: people, each with one video.
        denoises: how much of the videos is made again.
        on_result: called as `on_result(done, total)`, for each video.
    """
    done, sources = 0, []
    emotion: dict[float, list[Again]] = {denoise: [] for denoise in denoises}
    voice: dict[float, list[Again]] = {denoise: [] for denoise in denoises}
    for place, person in enumerate(crowd_of(total)):
        video = DrawnVideo(scenes, speech(person, "neutral", place), SHOWN[place % len(SHOWN)])
        sources.append(video)
        for denoise in denoises:
            for results, make in ((emotion, video.with_emotion), (voice, video.with_voice)):
                results[denoise].append(make(denoise))
                done += 1
                if on_result is not None:
                    on_result(done, 2 * len(denoises) * total)
    return [
        _video_row(sources),
        *(_emotion_kept_row(denoise, results) for denoise, results in emotion.items()),
        *(_voice_row(denoise, results) for denoise, results in voice.items()),
    ]


class DrawnVideo:
    """A drawn video, and what is read off it.

    Args:
        scenes: Scenes.
        take: what it shows.
        to: the emotion that it gets.
    """

    def __init__(self, scenes: Scenes, take: Take, to: str):
        self._scenes, self.take, self.to = scenes, take, to
        self._other = least_alike(take, take.person, take.emotion, scenes.frames)
        self._count = min(len(take), len(self._other), scenes.frames)
        self._path = scenes.folder / f"react_{take.person.number}.mp4"
        write_take(take, self._path, scenes.side)
        self.head = HeadReader(take.person)
        self._before = self._shown(self._path)
        self.read = self._compared(self._before, take)

    def with_emotion(self, denoise) -> Again:
        """Made again with the emotion, and its own sound."""
        shown = self._made("emotion", denoise, emotion=self.to, length=self._count / FPS)
        return self._compared(shown, self.take)

    def with_voice(self, denoise) -> Again:
        """Made again with the sound of another sentence, and its own emotion."""
        sound = self._other.sound[: self._count * SAMPLES_PER_FRAME]
        audio = self._scenes.sound_file(f"react_{self.take.person.number}_voice", sound)
        return self._compared(self._made("voice", denoise, emotion=self.take.emotion, audio=audio), self._other)

    def _made(self, what, denoise, **fields):
        face = ",".join(f"{value:.2f}" for value in self.take.face_box(self._scenes.side))
        name = f"react_{self.take.person.number}_{what}_{denoise:g}"
        job = self._scenes.job(name, video=self._path, face=face, denoise=denoise, **fields)
        render(job, say=lambda text: None)
        return self._shown(job.output)

    def _shown(self, path):
        frames = frames_of(path)[: self._count]
        return self._scenes.reader.read(frames), self.head.read(frames)

    def _compared(self, shown, spoken):
        (read, head), (read_before, head_before) = shown, self._before
        moved = [correlation(head[:, axis], head_before[:, axis]) for axis in range(2)]
        return Again(
            NAMES[int(of_clip(read)["emotion"].argmax())] == self.to,
            float(of_clip(read)["shares"][NAMES.index(self.to)]),
            correlation(read["mouth"], read_before["mouth"]),
            float(np.mean(moved)),
            correlation(read["mouth"], spoken.opening[: self._count]),
        )


def _video_row(videos):
    head = float(np.mean([video.head.right for video in videos]))
    changed, share, _, _, lips = _means([video.read for video in videos])
    return Row(
        "the videos themselves",
        f"read as the emotion that they will get {changed:.0%} (probability {share:.2f}); mouth against its speech "
        f"{lips:.2f}; the head is read with a correlation of {head:.2f}",
        clips=len(videos),
        numbers={"changed": changed, "probability": share, "speech": lips, "head_reader": head},
    )


def _emotion_kept_row(denoise, results):
    changed, share, mouth, head, _ = _means(results)
    return Row(
        f"another emotion, denoise {denoise:g}",
        f"read as the new emotion {changed:.0%} (probability {share:.2f}); kept: mouth {mouth:.2f}, head {head:.2f}",
        clips=len(results),
        numbers={"changed": changed, "probability": share, "mouth": mouth, "head": head},
    )


def _voice_row(denoise, results):
    *_, mouth, head, lips = _means(results)
    return Row(
        f"another sentence, denoise {denoise:g}",
        f"mouth against the new speech {lips:.2f}, against the old mouth {mouth:.2f}; kept: head {head:.2f}",
        clips=len(results),
        numbers={"speech": lips, "mouth": mouth, "head": head},
    )


def _means(results):
    return [float(np.mean(values)) for values in zip(*(vars(each).values() for each in results), strict=True)]


def frames_of(path) -> np.ndarray:
    """(n, height, width, 3) uint8 of a whole video."""
    from ..reading.streams import stream_frames

    return np.stack([picture for _, picture in stream_frames(path)])
