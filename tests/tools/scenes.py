"""Measures Re-act and Dialogue in drawn people, for a checkpoint that was trained on them.

    .venv/bin/python tests/tools/scenes.py dialogue --checkpoint DIR
    .venv/bin/python tests/tools/scenes.py react --checkpoint DIR

What a frame shows is read by ridge regression on true drawings of the same person: how far the lips are apart, where
the head is, and which emotion. The first lines say how well that reads true drawings that it was not fitted to.
"""

import argparse
import tempfile
from pathlib import Path

import _paths  # noqa: F401
import av
import numpy as np
from PIL import Image

from dicetalk.batch.dialogue import render_dialogue
from dicetalk.drawn import Person, Take, lip_gap
from dicetalk.drawn.files import wav, write_take
from dicetalk.emotion.options import NAMES
from dicetalk.job import Job
from dicetalk.rendering import render

SIDE = 48  # pixels, to read in
SENTENCES = range(6)


class Reader:
    """Reads frames of one drawn person: lip gap, place of the head (x, y), and a score for each emotion.

    Args:
        person: Person.
        cut: makes (SIDE, SIDE, 3) of a whole drawing of 256 pixels, as the frames are cut.
    """

    def __init__(self, person, cut):
        rows, facts = [], []
        for number in SENTENCES:
            for emotion in NAMES:
                take = Take(person, emotion, sentence=number, seed=number)
                every = range(0, len(take), 4)
                rows += [flat(cut(take.frame(frame, 256))) for frame in every]
                facts += [self._facts(take)[frame] for frame in every]
        rows, facts = np.array(rows), np.array(facts)
        held_out = np.arange(len(rows)) % 5 == 0
        self.mean, self.middle = rows[~held_out].mean(0), facts[~held_out].mean(0)
        centred = rows[~held_out] - self.mean
        kernel = centred @ centred.T
        kernel[np.diag_indices_from(kernel)] += 1e-3 * np.trace(kernel) / len(kernel)
        self.weights = centred.T @ np.linalg.solve(kernel, facts[~held_out] - self.middle)
        read = self.read_rows(rows[held_out])
        self.good = [np.corrcoef(read[:, each], facts[held_out, each])[0, 1] for each in range(3)]
        self.right = np.mean(read[:, 3:].argmax(1) == facts[held_out, 3:].argmax(1))

    @staticmethod
    def _facts(take):
        one = np.eye(len(NAMES))[take.emotion_number]
        gaps = lip_gap(take.blendshapes)
        return [np.array([gap, pose.x, pose.y, *one]) for gap, pose in zip(gaps, take.poses)]

    def read_rows(self, rows):
        return (rows - self.mean) @ self.weights + self.middle

    def read(self, frames):
        """(N, 3 + 8) of (N, height, width, 3) uint8 frames."""
        return self.read_rows(np.array([flat(frame) for frame in frames]))


def flat(picture):
    small = Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64).ravel() / 255


def frames_of(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def correlation(a, b):
    count = min(len(a), len(b))
    return np.corrcoef(a[:count], b[:count])[0, 1]


def measure_dialogue(args, folder):
    people = [Person.of(number) for number in args.people]
    takes = [Take(person, args.emotion, sentence=place, seed=9) for place, person in enumerate(people)]
    pictures = [take.portrait(256) for take in takes]
    Image.fromarray(np.concatenate(pictures, axis=1)).save(folder / "two.png")
    boxes = [np.array(take.face_box(256)) + (256 * place, 0, 256 * place, 0) for place, take in enumerate(takes)]
    for place, take in enumerate(takes):
        (folder / f"{place}.wav").write_bytes(wav(take.sound))
    made = render_dialogue(
        job(args, folder, portrait=folder / "two.png", audio=folder / "0.wav", margin=2.0),
        [args.emotion] * len(takes),
        [folder / f"{place}.wav" for place in range(len(takes))],
        faces="; ".join(",".join(f"{value:.0f}" for value in box) for box in boxes),
    )
    frames = frames_of(folder / "out.mp4")
    print(f"{made.frames} frames; people {args.people}, {args.emotion}")
    for place, person in enumerate(people):
        reader = Reader(person, lambda picture: picture)
        gaps = reader.read(frames[:, :, 256 * place : 256 * (place + 1)])[:, 0]
        told = [correlation(gaps, lip_gap(take.blendshapes)) for take in takes]
        others = max(abs(value) for other, value in enumerate(told) if other != place)
        print(
            f"person {place + 1}: mouth with its own track {told[place]:.2f}, with another one {others:.2f} at most; "
            f"true drawings are read with {reader.good[0]:.2f}"
        )


def measure_react(args, folder):
    person = Person.of(args.people[0])
    take = Take(person, args.emotion, sentence=7, seed=9)
    write_take(take, folder / "talk.mp4", 256)
    face = ",".join(f"{value:.0f}" for value in take.face_box(256))
    reader, before = Reader(person, lambda picture: picture), frames_of(folder / "talk.mp4")
    read = reader.read(before)
    right = "lips {:.2f}, head {:.2f} and {:.2f}".format(*reader.good)
    print(f"true drawings are read with: {right} (correlations), emotion {reader.right:.0%} right")
    print(f"{args.emotion} → {args.to}\ndenoise   lips   head x   head y   frames that show {args.to}")
    source, target = NAMES.index(args.emotion), NAMES.index(args.to)
    for denoise in args.denoise:
        fields = {"video": folder / "talk.mp4", "denoise": denoise, "emotion": args.to, "face": face}
        render(job(args, folder, **fields), say=lambda text: None)
        now = reader.read(frames_of(folder / "out.mp4"))
        kept = [correlation(now[:, each], read[:, each]) for each in range(3)]
        changed = np.mean(now[:, 3 + target] > now[:, 3 + source])
        print(f"{denoise:7.2f}{kept[0]:7.2f}{kept[1]:9.2f}{kept[2]:9.2f}   {changed:.0%}")


def job(args, folder, **fields):
    settings = {"checkpoint": args.checkpoint, "size": args.size, "steps": args.steps, "fps": "12.5", "device": "cpu"}
    return Job.of(settings | {"output": folder / "out.mp4"} | fields)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("dialogue", "react"))
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--people", type=int, nargs="+", default=[100, 103], help="numbers of drawn people")
    parser.add_argument("--emotion", default="neutral", choices=NAMES)
    parser.add_argument("--to", default="happy", choices=NAMES)
    parser.add_argument("--denoise", type=float, nargs="+", default=[0.3, 0.4, 0.5, 0.6, 0.7, 1.0])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=25)
    args = parser.parse_args()
    measures = {"dialogue": measure_dialogue, "react": measure_react}
    with tempfile.TemporaryDirectory() as folder:
        measures[args.what](args, Path(folder))


if __name__ == "__main__":
    main()
