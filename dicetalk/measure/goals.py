"""The table of goals in the drawn world: which clips each of them needs, and what is read off these.

Everyone who is shown, and everything that is said, is of the held-out fourth of the drawn world
(`dicetalk.drawn.splits`), which nothing is trained on.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..drawn import Person, Take
from ..drawn.expression import most
from ..drawn.splits import people, sentences
from ..emotion.mixing import mix
from ..emotion.options import FPS, NAMES
from ..emotion.timeline import EmotionTimeline, TimelineKey
from ..emotion.value import Emotion
from .drawn_clips import Asked, Result, Sampling, Studio

SHOWN = tuple(name for name in NAMES if name != "neutral")
INTENSITIES = (0.5, 1.0, 1.5)
MIXED = 0.65  # the share of the stronger one
# Pairs for mixes and timelines: those that a person shows follow its place.
PAIRS = (("happy", "surprised"), ("sad", "fear"), ("angry", "disgusted"), ("happy", "sad"), ("surprised", "angry"))
_NEAREST, _AMONG = 10, 50
_LEVEL = 2  # of the speech


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        what: what is measured.
        value: as text.
        goal: as text; empty for none.
        met: whether the goal is met; None where there is none.
        clips: how many it was measured on.
        drawn: the same of the drawn takes themselves; empty where there are none.
        numbers: all behind it, as JSON's values.
    """

    what: str
    value: str
    goal: str = ""
    met: bool | None = None
    clips: int = 0
    drawn: str = ""
    numbers: Mapping[str, Any] | None = None


def speech(person: Person, emotion: str, place: int, level: int = _LEVEL) -> Take:
    """The held-out take of a person whose sound a clip gets."""
    said = sentences("held-out")
    return Take(person, emotion, min(level, most(emotion)), said[place % len(said)], 3)


def plain_clips(priors: Mapping[str, Emotion], crowd) -> list[Asked]:
    """Each person with each emotion, and speech in it: what most goals are measured on."""
    return [
        Asked(person, speech(person, name, place + at), priors[name], {"emotion": name, "intensity": 1.0})
        for place, person in enumerate(crowd)
        for at, name in enumerate(NAMES)
    ]


def crowd_of(total) -> list[Person]:
    """So many held-out people."""
    return [Person.of(number) for number in people("held-out", total)]


def measure_goals(studio: Studio, priors, sampling: Sampling, total=4, embedder=None, on_result=None) -> list[Row]:
    """The rows of the goals.

    Args:
        studio: Studio.
        priors: name → Emotion of the eight.
        sampling: Sampling.
        total: people; most goals take 8 clips of each, intensity 14 more of the first half of them.
        embedder: reads the emotion off a drawn take, `(Take) -> Emotion`; None leaves the goal of reference clips out.
        on_result: called as `on_result(done, total)`.
    """
    crowd, asked = crowd_of(total), {}
    asked["plain"] = plain_clips(priors, crowd)
    asked["intensity"] = _intensities(priors, crowd[: math.ceil(total / 2)])
    asked["timeline"] = _timelines(priors, crowd, studio.frames)
    asked["mix"] = _mixes(priors, crowd)
    if embedder is not None:
        asked["reference"] = _references(embedder, crowd)
    results = make_all(studio, asked, sampling, on_result)
    drawn = [studio.draw(each) for each in asked["plain"]]
    among = crowd_of(max(_AMONG, total))
    rows = [
        emotion_row(results["plain"], drawn),
        _intensity_row([*results["plain"], *results["intensity"]]),
        *lips_rows(results["plain"], drawn),
        *identity_rows(studio, results["plain"], drawn, among),
    ]
    if embedder is not None:
        rows += _reference_rows(studio, results["reference"], among)
    return [*rows, _timeline_row(results["timeline"]), _mix_row(results["mix"])]


def make_all(studio: Studio, asked: Mapping[str, list[Asked]], sampling: Sampling, on_result=None):
    """name → Results of lists of clips to make."""
    total, done = sum(map(len, asked.values())), 0
    results: dict[str, list[Result]] = {}
    for name, clips in asked.items():
        results[name] = []
        for each in clips:
            results[name].append(studio.make(each, sampling))
            done += 1
            if on_result is not None:
                on_result(done, total)
    return results


def emotion_row(results, drawn=(), what="emotion accuracy, eight classes", goal=0.85) -> Row:
    right = [each.named == each.asked.about["emotion"] for each in results]
    by_emotion = {
        name: _mean(each.named == name for each in results if each.asked.about["emotion"] == name) for name in NAMES
    }
    return Row(
        what,
        f"{np.mean(right):.1%} ({sum(right)} of {len(right)})",
        "" if goal is None else f"≥ {100 * goal:.0f} %",
        None if goal is None else float(np.mean(right)) >= goal,
        len(right),
        f"{np.mean([each.named == each.asked.about['emotion'] for each in drawn]):.1%}" if drawn else "",
        {"accuracy": float(np.mean(right)), "by_emotion": by_emotion, "confusion": confusion(results)},
    )


def confusion(results) -> dict[str, dict[str, int]]:
    """Asked emotion → read emotion → how often; what never happened is left out."""
    table: dict[str, dict[str, int]] = {}
    for each in results:
        row = table.setdefault(each.asked.about["emotion"], {})
        row[each.named] = row.get(each.named, 0) + 1
    return table


def lips_rows(results, drawn=()) -> list[Row]:
    own, other = own_lips(results), _others_lips(results)
    return [
        Row(
            "mouth against its speech, correlation",
            f"{own:.2f}",
            "≥ 0.70",
            own >= 0.7,
            len(results),
            f"{own_lips(drawn):.2f}" if drawn else "",
            {"correlation": own, "each": [round(each.lips(), 4) for each in results]},
        ),
        Row(
            "mouth against another clip's speech",
            f"{other:.2f}",
            "≤ 0.20",
            other <= 0.2,
            len(results),
            f"{_others_lips(drawn):.2f}" if drawn else "",
            {"correlation": other},
        ),
    ]


def own_lips(results) -> float:
    """Mean correlation of the clips' mouths with their own speech."""
    return float(np.mean([each.lips() for each in results]))


def _others_lips(results):
    """Mean correlation with the speech of other clips of another sentence: of the next four."""
    others = [
        each.lips(other.asked.take)
        for place, each in enumerate(results)
        for step in range(1, min(5, len(results)))
        if (other := results[(place + step) % len(results)]).asked.take.sentence != each.asked.take.sentence
    ]
    return float(np.mean(others))


def identity_rows(studio, results, drawn, among) -> list[Row]:
    def found(clips):
        return [studio.nearest(each, among)[0] == each.asked.person for each in clips]

    right = found(results)
    by_emotion = {
        name: _mean(ok for ok, each in zip(right, results) if each.asked.about["emotion"] == name) for name in NAMES
    }
    known = [value for value in by_emotion.values() if value is not None]
    apart = max(known) - min(known)
    return [
        Row(
            f"identity: the right person among {len(among)}",
            f"{np.mean(right):.1%} ({sum(right)} of {len(right)})",
            "≥ 90 %",
            float(np.mean(right)) >= 0.9,
            len(right),
            f"{np.mean(found(drawn)):.1%}" if drawn else "",
            {"found": float(np.mean(right)), "by_emotion": by_emotion},
        ),
        Row(
            "identity: largest difference between emotions",
            f"{100 * apart:.0f} points",
            "≤ 5 points",
            apart <= 0.05,
            len(right),
            "",
            {"points": 100 * apart},
        ),
    ]


def _intensities(priors, crowd):
    return [
        Asked(
            person,
            speech(person, name, place + NAMES.index(name)),
            priors[name].with_intensity(priors["neutral"], intensity),
            {"emotion": name, "intensity": intensity},
        )
        for place, person in enumerate(crowd)
        for name in SHOWN
        for intensity in INTENSITIES
        if intensity != 1.0
    ]


def _intensity_row(results):
    """Clips at intensity 1 count for the people who have the others too."""
    asked = {each.asked.person for each in results if each.asked.about["intensity"] != 1.0}
    strengths = {
        name: [
            _mean(
                each.clip["strength"]
                for each in results
                if each.asked.person in asked
                and (each.asked.about["emotion"], each.asked.about["intensity"]) == (name, intensity)
            )
            for intensity in INTENSITIES
        ]
        for name in SHOWN
    }
    rising = [name for name, row in strengths.items() if row[0] < row[1] < row[2]]
    shown = "; ".join(f"{name} {', '.join(f'{value:.2f}' for value in row)}" for name, row in strengths.items())
    return Row(
        "strength read at intensity 0.5, 1 and 1.5 rises",
        f"for {len(rising)} of {len(SHOWN)} ({shown})",
        f"for {len(SHOWN)} of {len(SHOWN)}",
        len(rising) == len(SHOWN),
        len(SHOWN) * len(INTENSITIES) * len(asked),
        "",
        {"strength": strengths},
    )


def _timelines(priors, crowd, longest):
    """Neutral, and at a time of each clip's own, near its middle, at once an emotion."""
    asked = []
    for place, person in enumerate(crowd):
        take, name = speech(person, "neutral", place), SHOWN[place % len(SHOWN)]
        at = max(1, round(min(len(take), longest) * (0.4 + 0.05 * (place % 3)))) / FPS
        keys = TimelineKey(0, priors["neutral"]), TimelineKey(at, priors[name], "step")
        asked.append(Asked(person, take, EmotionTimeline(keys), {"emotion": name, "at": at}))
    return asked


def _timeline_row(results):
    off = [change(each.frames, each.asked.about["emotion"]) - each.asked.about["at"] * FPS for each in results]
    within = [abs(value) <= 2 for value in off]
    return Row(
        "a timeline's change is at its time, within 2 frames",
        f"{np.mean(within):.0%} ({sum(within)} of {len(within)}; off by {', '.join(f'{value:+.0f}' for value in off)})",
        "≥ 75 %",
        float(np.mean(within)) >= 0.75,
        len(within),
        "",
        {"frames_off": [float(value) for value in off]},
    )


def change(frames, emotion) -> int:
    """The frame at which an emotion begins to show: where one step, down to up, fits its course best.

    Args:
        frames: `DrawnReader.read` of a clip of at least two frames.
        emotion: one of NAMES.

    Returns:
        The first frame after the step, from 1 to the number of frames less one.
    """
    course = np.exp(frames["emotion"][:, NAMES.index(emotion)]) * frames["strength"]
    gains = [
        at * (len(course) - at) * max(course[at:].mean() - course[:at].mean(), 0) ** 2 for at in range(1, len(course))
    ]
    return 1 + int(np.argmax(gains))


def _mixes(priors, crowd):
    asked = []
    for place, person in enumerate(crowd):
        for pair in (PAIRS[place % len(PAIRS)], PAIRS[place % len(PAIRS)][::-1]):
            value = mix([priors[name] for name in pair], [MIXED, 1 - MIXED])
            asked.append(Asked(person, speech(person, "neutral", place + 1), value, {"mix": list(pair)}))
    return asked


def _mix_row(results):
    """The two are read, and more of the first than where it is the weaker one."""

    def share(each, name):
        return float(each.clip["shares"][NAMES.index(name)])

    two = [
        {NAMES[place] for place in np.argsort(each.clip["shares"])[-2:]} == set(each.asked.about["mix"])
        for each in results
    ]
    ordered = [share(each, each.asked.about["mix"][0]) > share(each, each.asked.about["mix"][1]) for each in results]
    both = [one and other for one, other in zip(two, ordered)]
    rises = [
        share(each, each.asked.about["mix"][0]) > share(swapped, each.asked.about["mix"][0])
        for each, swapped in zip(results[::2], results[1::2])
    ]
    return Row(
        f"a mix of two, {MIXED:.0%} and {1 - MIXED:.0%}: read as the two, in the right order",
        f"{np.mean(both):.0%} (the two: {np.mean(two):.0%}; the order: {np.mean(ordered):.0%}; more of it where it is "
        f"the stronger one: {np.mean(rises):.0%})",
        "≥ 75 %",
        float(np.mean(both)) >= 0.75,
        len(results),
        "",
        {"both": float(np.mean(both)), "two": float(np.mean(two)), "order": float(np.mean(ordered))},
    )


def _references(embedder, crowd):
    """Each person, asked for the emotion of a take by another one of the crowd, who is not shown."""
    asked = []
    others = [Person.of(number) for number in people("held-out", 2 * len(crowd))][len(crowd) :]
    for place, (person, other) in enumerate(zip(crowd, others)):
        for at, name in enumerate(NAMES):
            value = embedder(speech(other, name, place + at + 3, most(name)))
            about = {"emotion": name, "by": other.number}
            asked.append(Asked(person, speech(person, "neutral", place + at), value, about))
    return asked


def _reference_rows(studio, results, among):
    found = []
    for each in results:
        rest = [person for person in among if person != each.asked.person]
        rest += (
            []
            if any(person.number == each.asked.about["by"] for person in rest)
            else [Person.of(each.asked.about["by"])]
        )
        nearest = studio.nearest(each, rest)[:_NEAREST]
        found.append(each.asked.about["by"] in [person.number for person in nearest])
    chance = _NEAREST / (len(among) - 1)
    row = emotion_row(results, what="emotion of another person's clip, learned embedder", goal=0.75)
    probe = Row(
        f"that person among the {_NEAREST} most like the clip, of the {len(among) - 1} who are not shown",
        f"{np.mean(found):.1%}",
        f"≤ {1.5 * chance:.1%} (1.5 × chance)",
        float(np.mean(found)) <= 1.5 * chance,
        len(found),
        "",
        {"found": float(np.mean(found)), "chance": chance},
    )
    return [row, probe]


# What is harder


def measure_harder(studio: Studio, priors, sampling: Sampling, total=2, on_result=None) -> list[Row]:
    """Rows beyond the goals: speech of one emotion with the label of another, and doses of intensity and guidance.

    Args:
        studio, priors, sampling, total, on_result: as of `measure_goals`.
    """
    crowd = crowd_of(total)
    shown = [each for each in plain_clips(priors, crowd) if each.about["emotion"] != "neutral"]
    asked = {"against": _against(priors, crowd), "neutral voice": _with_neutral_voice(priors, crowd)}
    doses = (0.0, 0.5, 1.0, 1.5, 2.0)
    for dose in doses:
        asked[f"dose {dose}"] = [
            replace(
                each,
                emotion=each.emotion.with_intensity(priors["neutral"], dose),
                about={**each.about, "intensity": dose},
            )
            for each in shown
        ]
    scales = (1.0, 3.0, 6.0, 9.0)
    whole = sum(map(len, asked.values())) + len(scales) * len(shown)
    counted = {"done": 0}

    def on_one(*_):
        counted["done"] += 1
        if on_result is not None:
            on_result(counted["done"], whole)

    results = make_all(studio, asked, sampling, on_one)
    against = results["against"]
    label = float(np.mean([each.named == each.asked.about["emotion"] for each in against]))
    voice = float(np.mean([each.named == each.asked.about["voice"] for each in against]))
    rows = [
        Row(
            "speech of another emotion than the asked one: what the face shows",
            f"the asked one {label:.0%}, the voice's {voice:.0%}; mouth {own_lips(against):.2f}",
            "",
            None,
            len(against),
            "",
            {"asked": label, "voice": voice, "correlation": own_lips(against)},
        ),
        emotion_row(results["neutral voice"], what="emotion accuracy with neutral speech", goal=None),
    ]
    rows += [_dose(f"intensity {dose:g}", results[f"dose {dose}"]) for dose in doses]
    for scale in scales:
        one = replace(sampling, reference_scale=min(sampling.reference_scale, scale), emotion_scale=scale)
        name = f"emotion scale {scale:g}, reference scale {one.reference_scale:g}"
        rows.append(_dose(name, make_all(studio, {"": shown}, one, on_one)[""]))
    return rows


def _against(priors, crowd):
    return [
        Asked(person, speech(person, voice, place + at, 3), priors[name], {"emotion": name, "voice": voice})
        for place, person in enumerate(crowd)
        for at, name in enumerate(SHOWN)
        for voice in [SHOWN[(at + 1 + place % (len(SHOWN) - 1)) % len(SHOWN)]]
    ]


def _with_neutral_voice(priors, crowd):
    return [
        Asked(person, speech(person, "neutral", place + at), priors[name], {"emotion": name})
        for place, person in enumerate(crowd)
        for at, name in enumerate(NAMES)
    ]


def _dose(what, results):
    place = [NAMES.index(each.asked.about["emotion"]) for each in results]
    shown = float(np.mean([each.clip["emotion"][at] for at, each in zip(place, results)]))
    right = float(np.mean([each.named == each.asked.about["emotion"] for each in results]))
    strength, lips = float(np.mean([each.clip["strength"] for each in results])), own_lips(results)
    return Row(
        what,
        f"emotion {right:.0%} (probability {shown:.2f}, strength {strength:.2f}), mouth {lips:.2f}",
        "",
        None,
        len(results),
        "",
        {"accuracy": right, "probability": shown, "strength": strength, "correlation": lips},
    )


def _mean(values):
    values = list(values)
    return float(np.mean(values)) if values else None
