"""Draws example_workflows/*.jpg, under which ComfyUI lists the workflows, from the example portrait and speech.

    python tests/tools/make_thumbnails.py

They show what goes into a workflow and what it does with it. None shows what the released model would draw; the first
shows frames of the miniature.
"""

import _paths  # noqa: F401
import numpy as np
from emotions import make_priors
from make_workflows import WORKFLOWS
from PIL import Image, ImageDraw, ImageFont
from project import ROOT

from dicetalk.emotion.drawing import COLOURS
from dicetalk.emotion.options import NAMES
from dicetalk.emotion.parsing import parse_emotion
from dicetalk.emotion.picture import weights_of_eight
from dicetalk.media.audio import load_audio
from dicetalk.media.paste import edge_weights

TITLES = {make.__name__: title for title, make in WORKFLOWS.items()}
SIDE, FINE = 512, 2  # drawn twice as large, then made smaller
BACK, CARD, LINE, TEXT, SOUND = (24, 26, 31), (44, 48, 56), (120, 128, 140), (235, 237, 240), (140, 190, 255)
QUALITY = 85
FACE = (118, 10, 334, 226)  # head and shoulders in the example portrait


class Canvas:
    """A square picture; all measures are those of the finished one."""

    def __init__(self):
        self.image = Image.new("RGB", (SIDE * FINE, SIDE * FINE), BACK)
        self.draw = ImageDraw.Draw(self.image)

    def _scaled(self, points):
        return [FINE * value for value in points]

    def card(self, box, fill=CARD, outline=None, radius=12, width=2):
        self.draw.rounded_rectangle(self._scaled(box), FINE * radius, fill, outline, FINE * width)

    def line(self, points, fill=LINE, width=2):
        self.draw.line(self._scaled(points), fill, FINE * width, joint="curve")

    def area(self, points, fill):
        self.draw.polygon(self._scaled(points), fill)

    def dot(self, x, y, radius, fill):
        self.draw.ellipse(self._scaled((x - radius, y - radius, x + radius, y + radius)), fill)

    def text(self, x, y, text, size=24, fill=TEXT, anchor="mm"):
        self.draw.text((FINE * x, FINE * y), text, fill, ImageFont.load_default(FINE * size), anchor=anchor)

    def arrow(self, x1, y1, x2, y2):
        self.line((x1, y1, x2, y2), width=4)
        along = np.array([x2 - x1, y2 - y1]) / np.hypot(x2 - x1, y2 - y1)
        tip, side = np.array([x2, y2]), np.array([-along[1], along[0]])
        self.area([*(tip + 12 * along), *(tip - 4 * along + 10 * side), *(tip - 4 * along - 10 * side)], LINE)

    def photo(self, box, part=FACE, radius=12, shade=1.0):
        """A part of the example portrait, in a box with round corners; a radius of half its side makes it round."""
        left, top, right, bottom = (round(FINE * value) for value in box)
        picture = Image.open(ROOT / "demo" / "portrait.jpg").convert("RGB").crop(part)
        picture = picture.resize((right - left, bottom - top), Image.Resampling.LANCZOS)
        mask = Image.new("L", picture.size)
        ImageDraw.Draw(mask).rounded_rectangle((0, 0, *(side - 1 for side in mask.size)), FINE * radius, 255)
        self.image.paste(picture.point(lambda value: value * shade), (left, top), mask)

    def speech(self, box, bars=60, fill=SOUND, first=0.0, last=1.0):
        """The loudness of the example speech, or a part of it."""
        left, top, right, bottom = box
        samples = load_audio(ROOT / "demo" / "speech.flac")
        samples = np.asarray(samples)[int(first * len(samples)) : int(last * len(samples))]
        loud = np.array([np.sqrt(np.mean(np.square(piece))) for piece in np.array_split(samples, bars)])
        step, middle = (right - left) / bars, (top + bottom) / 2
        for number, value in enumerate(loud / loud.max()):
            x, half = left + (number + 0.5) * step, max(1.5, value * (bottom - top) / 2)
            width = 0.3 * step
            self.draw.rounded_rectangle(self._scaled((x - width, middle - half, x + width, middle + half)), 4, fill)

    def chip(self, x, y, text, colour, width=130):
        self.card((x - width / 2, y - 20, x + width / 2, y + 20), colour, radius=20)
        self.text(x, y - 1, text, 22, (20, 20, 20))

    def finished(self):
        return self.image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def quick_start(canvas):
    canvas.photo((106, 40, 406, 340), radius=24)
    canvas.chip(386, 340, "happy", COLOURS["happy"])
    canvas.speech((70, 380, 442, 470))


def frames_25_fps(canvas):
    canvas.photo((156, 34, 356, 234), radius=20)
    for row, (label, every) in enumerate((("12.5", 2), ("25 fps", 1))):
        y = 282 + 108 * row
        canvas.text(26, y + 34, label, 25, anchor="lm")
        for number in range(0, 9, every):
            x = 116 + 42 * number
            new = number % 2 == 1
            canvas.card((x, y, x + 36, y + 68), COLOURS["surprised"] if new else CARD, LINE, radius=6)


def mixed_emotion(canvas):
    box = [FINE * value for value in (56, 56, 456, 456)]
    canvas.draw.pieslice(box, -90, -90 + 0.4 * 360, COLOURS["surprised"])
    canvas.draw.pieslice(box, -90 + 0.4 * 360, 270, COLOURS["happy"])
    canvas.dot(256, 256, 158, BACK)
    canvas.photo((108, 108, 404, 404), radius=148)
    canvas.chip(408, 84, "surprised", COLOURS["surprised"], 140)
    canvas.chip(100, 440, "happy", COLOURS["happy"])


def emotion_timeline(canvas):
    canvas.photo((176, 28, 336, 188), radius=20)
    left, top, right, bottom = 40, 220, 472, 400
    priors, end = make_priors(), 2.8
    text = "0s neutral; 1s happy:1.2 smooth; 2.2s (surprised 0.6 + happy 0.4) smooth"
    timeline = parse_emotion(text, priors)
    means = np.stack([timeline.at(moment).mean.numpy() for moment in np.linspace(0, end, 217)])
    weights, _ = weights_of_eight(means, priors)
    names = [name for name in reversed(COLOURS) if weights[:, NAMES.index(name)].max() > 0.01]
    across = np.linspace(left, right, len(weights))
    lower = np.zeros(len(weights))
    for name in names:
        upper = lower + weights[:, NAMES.index(name)]
        edges = [bottom - edge / 1.25 * (bottom - top) for edge in (lower, upper)]
        points = [*zip(across, edges[0]), *zip(across[::-1], edges[1][::-1])]
        canvas.area([value for point in points for value in point], COLOURS[name])
        lower = upper
    for key in timeline.keys:
        x = left + (right - left) * key.time / end
        canvas.line((x, top, x, bottom), BACK, 3)
        canvas.dot(x, top, 8, TEXT)
    canvas.speech((left, 420, right, 484))


def emotion_from_clip(canvas):
    canvas.card((40, 76, 472, 216), CARD, radius=10)
    for number in range(3):
        x = 58 + 134 * number
        canvas.card((x, 90, x + 126, 202), BACK, radius=4)
        _person(canvas, (x + 7, 90, x + 119, 202), BACK, None)
    canvas.arrow(256, 226, 256, 252)
    for row, (name, share) in enumerate((("happy", 0.72), ("surprised", 0.35), ("contempt", 0.2), ("neutral", 0.45))):
        y = 280 + 54 * row
        canvas.card((176, y, 472, y + 38), CARD, radius=6)
        canvas.card((176, y, 176 + 296 * share, y + 38), COLOURS[name], radius=6)
        canvas.text(160, y + 19, name, 24, anchor="rm")


def custom_sampling(canvas):
    canvas.photo((322, 36, 472, 186), radius=20)
    steps, low, high = 20, 0.002 ** (1 / 7), 700 ** (1 / 7)
    sigmas = (high + np.linspace(0, 1, steps) * (low - high)) ** 7
    heights = (np.log(sigmas) - np.log(sigmas[-1])) / (np.log(sigmas[0]) - np.log(sigmas[-1]))
    points = [(48 + 416 * step / (steps - 1), 464 - 390 * height) for step, height in enumerate(heights)]
    canvas.line((40, 40, 40, 476, 476, 476), width=3)
    canvas.line([value for point in points for value in point], COLOURS["sad"], 4)
    for x, y in points:
        canvas.dot(x, y, 8, COLOURS["sad"])
    canvas.text(60, 448, "sigma", 24, anchor="lm")


def long_audio(canvas):
    canvas.photo((176, 28, 336, 188), radius=20)
    for row in range(4):
        y = 214 + 68 * row
        canvas.card((32, y, 480, y + 58), CARD, radius=10)
        order = (0.25 * ((row + 1) % 4), 0.25 * ((row + 1) % 4) + 0.25)
        canvas.speech((44, y + 8, 468, y + 50), 70, SOUND if row % 2 else COLOURS["surprised"], *order)


def generated_portrait(canvas):
    canvas.card((32, 82, 250, 214))
    for row, share in enumerate((1, 0.85, 0.95, 0.5)):
        canvas.card((52, 102 + 27 * row, 52 + 178 * share, 112 + 27 * row), LINE, radius=5)
    canvas.arrow(140, 222, 140, 250)
    _person(canvas, (68, 270, 214, 416))
    canvas.arrow(224, 343, 252, 343)
    _person(canvas, (272, 236, 484, 448))
    canvas.speech((290, 70, 470, 160), 30)
    canvas.arrow(380, 176, 380, 214)


def _person(canvas, box, fill=CARD, outline=LINE):
    left, top, right, bottom = box
    side, middle = right - left, (left + right) / 2
    canvas.card(box, fill, outline, radius=10)
    canvas.dot(middle, top + 0.38 * side, 0.2 * side, COLOURS["sad"])
    canvas.card(
        (middle - 0.32 * side, top + 0.64 * side, middle + 0.32 * side, bottom - 4), COLOURS["sad"], radius=0.12 * side
    )


def paste_back(canvas):
    whole, crop = (0, 0, 512, 512), (125, 20, 327, 222)
    canvas.photo((0, 0, 512, 512), whole, radius=0, shade=0.4)
    bright, dark = np.asarray(Image.open(ROOT / "demo" / "portrait.jpg")), np.asarray(canvas.finished())
    weights = np.zeros((512, 512, 1))
    weights[crop[1] : crop[3], crop[0] : crop[2], 0] = edge_weights(crop, (512, 512), 0.1).numpy()
    mixed = Image.fromarray((dark + weights * (bright.astype(float) - dark)).astype(np.uint8))
    canvas.image.paste(mixed.resize(canvas.image.size, Image.Resampling.LANCZOS))
    canvas.draw.rectangle(canvas._scaled(crop), outline=TEXT, width=4)
    canvas.card((60, 404, 452, 480), BACK, radius=20)
    canvas.speech((80, 414, 432, 470))


def emotion_follows_speech(canvas):
    canvas.photo((176, 28, 336, 188), radius=20)
    lines = (("happy", "[happy] Hello!"), ("surprised", "[surprised] I am so glad"), ("sad", "[sad] I have to go."))
    for place, (name, text) in enumerate(lines):
        top = 214 + 66 * place
        canvas.card((40, top, 472, top + 54), CARD, COLOURS[name])
        canvas.card((40, top, 56, top + 54), COLOURS[name], radius=6)
        canvas.text(76, top + 27, text, 28, anchor="lm")
    canvas.speech((40, 420, 472, 484))


def re_act(canvas):
    canvas.photo((26, 60, 226, 260))
    canvas.text(126, 290, "neutral", 28)
    canvas.arrow(238, 160, 268, 160)
    canvas.photo((286, 60, 486, 260))
    canvas.card((286, 60, 486, 260), None, COLOURS["sad"], 12, 6)
    canvas.text(386, 290, "sad", 28, COLOURS["sad"])
    canvas.card((26, 330, 486, 470))
    canvas.speech((46, 350, 466, 450))


def dialogue(canvas):
    picture = Image.open(ROOT / "demo" / "two.jpg").resize((460 * FINE, 230 * FINE), Image.Resampling.LANCZOS)
    canvas.image.paste(picture, (26 * FINE, 50 * FINE))
    for number, (left, colour) in enumerate(((66, COLOURS["happy"]), (296, COLOURS["neutral"])), 1):
        canvas.card((left, 70, left + 150, 250), None, colour, 8, 5)
        canvas.text(left + 75, 310, str(number), 34, colour)
    canvas.card((26, 340, 486, 470))
    canvas.speech((46, 350, 246, 460), 28, COLOURS["happy"], 0.0, 0.45)
    canvas.speech((266, 350, 466, 460), 28, COLOURS["neutral"], 0.45, 1.0)


def miniature(canvas):
    """Its own frames: the eight emotions of the example."""
    picture = Image.open(ROOT / "docs" / "images" / "miniature.png")
    size = SIDE * FINE, round(SIDE * FINE * picture.height / picture.width)
    canvas.image.paste(picture.resize(size, Image.Resampling.BICUBIC), (0, (SIDE * FINE - size[1]) // 2))


THUMBNAILS = (
    miniature,
    quick_start,
    frames_25_fps,
    mixed_emotion,
    emotion_timeline,
    emotion_from_clip,
    custom_sampling,
    long_audio,
    generated_portrait,
    paste_back,
    emotion_follows_speech,
    re_act,
    dialogue,
)


if __name__ == "__main__":
    for drawing in THUMBNAILS:
        canvas = Canvas()
        drawing(canvas)
        target = ROOT / "example_workflows" / f"{TITLES[drawing.__name__]}.jpg"
        canvas.finished().save(target, quality=QUALITY, subsampling=0, optimize=True)
