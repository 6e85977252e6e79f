"""How well the emotion of drawn takes is read, by held-out people: the table of docs/drawn-people.md.

python tests/tools/drawn_reading.py [--people 8]: some minutes on a CPU, most of them for the pitch of the voices.
"""

import argparse

import _paths  # noqa: F401
import numpy as np
import torch

from dicetalk.checkpoints.tiny import emotion_means
from dicetalk.drawn import CLASSES, SENTENCES, Person, Take, lip_gap
from dicetalk.drawn.splits import people
from dicetalk.emotion import Emotion
from dicetalk.emotion.options import NAMES
from dicetalk.reading import Clip, Evidence
from dicetalk.reading.clip import array_stream, waveform_stream

GREY = slice(14, 58), slice(10, 54)  # the face in a picture of 64 pixels


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=8)
    total = parser.parse_args().people
    priors = {name: Emotion(torch.from_numpy(mean), name=name) for name, mean in emotion_means().items()}
    takes = [
        Take(Person.of(number), *each, (5 * row + 3 * column) % len(SENTENCES), row)
        for row, number in enumerate(people("held-out", total))
        for column, each in enumerate(CLASSES)
    ]
    answers, lips, others = [], [], []
    for take, other in zip(takes, takes[1:] + takes[:1]):
        sound = waveform_stream(take.sound[None], 16000)
        reading = Evidence().read(Clip(blendshapes=array_stream(take.blendshapes, 12.5), audio=sound), priors)
        answers.append({cue: NAMES[int(np.argmax(weights))] for cue, weights in reading.weights.items()})
        lips.append(_along(take, take))
        others.append(_along(take, other))
    cues = list(answers[0])
    print("| read as what it is | " + " | ".join(cues) + " |\n" + "|---" * (len(cues) + 1) + "|")
    for level in (1, 2, 3):
        of_level = [
            [answer[cue] == take.emotion for take, answer in zip(takes, answers) if take.level == level] for cue in cues
        ]
        shares = " | ".join(f"{sum(right)} of {len(right)}" for right in of_level)
        print(f"| level {level}{' and neutral' if level == 1 else ''} | {shares} |")
    wrong = [(t.emotion, t.level, a["combined"]) for t, a in zip(takes, answers) if a["combined"] != t.emotion]
    print("Read wrongly (emotion, level, read as):", *sorted(wrong), sep="\n  ")
    print(f"Lips against the loudness of their own sound: {np.mean(lips):.2f} on average, {min(lips):.2f} at least;")
    print(f"against another take's: {np.mean(others):.2f} on average.")
    print(f"Linear classifier on pictures of 64 pixels, unknown people who speak: {_linear():.1%}")


def _along(take, heard):
    """Correlation of a take's mouth with a take's sound, frame by frame."""
    loud = np.sqrt((heard.sound.reshape(-1, 1280).astype(np.float64) ** 2).mean(1))
    both = min(len(take), len(heard))
    return float(np.corrcoef(lip_gap(take.blendshapes)[:both], loud[:both])[0, 1])


def _linear(learn=48, test=16):
    """Accuracy of ridge regression on two frames of each person's takes at the highest level."""

    def pictures(split, total):
        rows, labels = [], []
        for number in people(split, total):
            for label, emotion in enumerate(NAMES):
                take = Take(Person.of(number), emotion, None, number % len(SENTENCES), number)
                for frame in (len(take) // 2 - 4, len(take) // 2 + 3):
                    grey = take.frame(frame, 64).mean(2)[GREY]
                    rows.append((grey - grey.mean()).ravel() / grey.std())
                    labels.append(label)
        return np.array(rows), np.array(labels)

    learned, labels = pictures("train", learn)
    unknown, truth = pictures("held-out", test)
    kernel = learned @ learned.T + 300 * np.eye(len(learned))
    answers = unknown @ (learned.T @ np.linalg.solve(kernel, np.eye(8)[labels] - 1 / 8))
    return (answers.argmax(1) == truth).mean()


if __name__ == "__main__":
    main()
