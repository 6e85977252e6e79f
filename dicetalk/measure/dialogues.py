"""Dialogues of two drawn people in one picture: whose track each mouth follows."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..drawn import Take
from ..drawn.face import face_box
from ..drawn.speech import SAMPLE_RATE
from ..emotion.options import NAMES
from ..media.image import save_png
from ..media.portrait import face_crop
from ..model.audio import SAMPLES_PER_FRAME
from .drawn_clips import correlation
from .goals import PAIRS, Row, crowd_of, speech
from .reader import of_clip
from .scenes import Scenes, frames_of, least_alike

_MARGIN = 0.5  # around a face in the dialogue's picture: a person's crop is nearly the whole drawing


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
    """How far the mouths are open of those who listen, and of those who speak."""
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
