"""An evaluation as files and as text: JSON, Markdown, and a sheet of what was made."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from ..emotion.options import NAMES
from ..files import write_errors, written_beside
from ..media.image import save_png
from .goals import Row

MINIATURE = "Measured on a checkpoint that knows drawn people (the miniature), not on the released weights."
UNTRAINED = "The weights are random: the numbers are those of noise."


def table(rows: list[Row]) -> str:
    """Rows as a Markdown table; columns that are empty in all of them are left out."""
    head = ("what", "measured", "goal", "met", "drawn clips", "clips")
    body = [
        (
            *(row.what, row.value, row.goal, {True: "yes", False: "no", None: ""}[row.met]),
            *(row.drawn, str(row.clips)),
        )
        for row in rows
    ]
    kept = [column for column in range(len(head)) if any(line[column] for line in body)]
    lines = [head, ("---",) * len(head), *body]
    return "\n".join("| " + " | ".join(line[column] for column in kept) + " |" for line in lines)


def markdown(sections: dict[str, list[Row]], facts: dict) -> str:
    """Sections as a page: what was measured, on what, and the tables."""
    lines = [f"# Evaluation: {facts['checkpoint']}", "", facts["weights"], ""]
    lines += [f"- {name}: {value}" for name, value in facts["settings"].items()]
    for title, rows in sections.items():
        lines += ["", f"## {title}", "", table(rows)]
    return "\n".join(lines) + "\n"


def write_evaluation(folder, sections, facts, reader_errors=None):
    """Write evaluation.json and evaluation.md into a folder."""
    record = {
        "facts": facts,
        "reader": reader_errors,
        "sections": {title: [_plain(row) for row in rows] for title, rows in sections.items()},
    }
    write_pages(folder, record, markdown(sections, facts))


def write_pages(folder, record, text: str):
    """Write a record as evaluation.json and a text as evaluation.md into a folder.

    Raises:
        InputError: one of the files cannot be written.
    """
    pages = {"evaluation.json": json.dumps(record, indent=2, allow_nan=False) + "\n", "evaluation.md": text}
    for name, page in pages.items():
        path = Path(folder) / name
        with written_beside(path) as part, write_errors(path):
            part.write_bytes(page.encode())


def _plain(row):
    return {name: value for name, value in vars(row).items() if value not in ("", None)}


class Sheet:
    """Collects a picture of every person × emotion, to be looked at: people are rows, emotions columns.

    Its `add` fits `Studio`'s `on_clip`; clips at another intensity, and those of other kinds, are passed over, and of
    several of a kind the first stays.
    """

    def __init__(self):
        self._pictures = {}

    def add(self, result, pictures):
        about = result.asked.about
        if about.get("intensity") == 1.0:
            key = result.asked.person.number, about["emotion"]
            self._pictures.setdefault(key, pictures[len(pictures) // 2])

    def save(self, path, zoom=2):
        """Write the PNG; nothing where there are no pictures."""
        if not self._pictures:
            return
        people = sorted({number for number, _ in self._pictures})
        height, width = next(iter(self._pictures.values())).shape[:2]
        sheet = np.full((len(people) * height, len(NAMES) * width, 3), 255, np.uint8)
        for (number, emotion), picture in self._pictures.items():
            row, column = people.index(number) * height, NAMES.index(emotion) * width
            sheet[row : row + height, column : column + width] = picture
        image = Image.fromarray(sheet)
        save_png(image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST), path)


def clip_file(folder, result, pictures, number):
    """Write a clip, with its sound, NUMBER_PERSON_WHAT.mp4."""
    from ..drawn.speech import SAMPLE_RATE
    from ..emotion.options import FPS
    from ..media.video import write_video

    about = "_".join(str(value) for value in result.asked.about.values() if isinstance(value, (str, float)))
    name = f"{number:03}_{result.asked.person.number}_{about}.mp4"
    write_video(Path(folder) / name, list(pictures), FPS, result.asked.take.sound, SAMPLE_RATE)
