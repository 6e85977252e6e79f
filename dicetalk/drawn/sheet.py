"""Contact sheets: people × emotions, as one picture."""

from PIL import Image, ImageDraw, ImageFont

from ..emotion.options import NAMES
from ..errors import InputError
from .expression import expression, head, most
from .face import check_size, draw

MOST_PEOPLE = 64
_GAP, _MARGIN = 4, 8


def sheet(people, size=96, level=None):
    """A row for each person and a column for each of the eight emotions, at rest and not speaking.

    Args:
        people: Persons, 1 to 64.
        size: pixels of a face's side.
        level: 1 to 3; the highest one if None.

    Returns:
        PIL image, RGB.
    """
    check_size(size)
    if not 0 < len(people) <= MOST_PEOPLE:
        raise InputError(f"A sheet shows 1 to {MOST_PEOPLE} people, not {len(people)}.")
    font = ImageFont.load_default(max(10, size // 7))
    top = _MARGIN + round(1.6 * getattr(font, "size", 10))
    step = size + _GAP
    width, height = 2 * _MARGIN + len(NAMES) * step - _GAP, top + _MARGIN + len(people) * step - _GAP
    picture = Image.new("RGB", (width, height), (255, 255, 255))
    pen = ImageDraw.Draw(picture)
    for column, name in enumerate(NAMES):
        left, of_level = _MARGIN + column * step, most(name) if name == "neutral" else level
        pen.text((left + size / 2, top - 3), name, fill=(60, 60, 66), font=font, anchor="ms")
        for row, person in enumerate(people):
            face = draw(person, expression(person, name, of_level), head(person, name, of_level), size)
            picture.paste(face, (left, top + row * step))
    return picture
