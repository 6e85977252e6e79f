"""Drawn videos that are made again, with another emotion or another sentence: what changes, and what is kept."""

from dataclasses import dataclass

import numpy as np

from ..drawn import Take
from ..drawn.files import write_take
from ..emotion.options import FPS, NAMES
from ..job import DENOISE
from ..model.audio import SAMPLES_PER_FRAME
from ..rendering import render
from .drawn_clips import correlation
from .goals import SHOWN, Row, crowd_of, speech
from .head import HeadReader
from .reader import of_clip
from .scenes import Scenes, frames_of, least_alike

DENOISES = (0.4, DENOISE, 0.7, 1.0)


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
