"""Draws what the miniature makes: docs/images/miniature.png and miniature.webp, and the frames that its test expects.

    python tests/tools/make_miniature_pictures.py

The example portrait says the example sentence with each of the eight emotions, in the published settings.
"""

import _paths  # noqa: F401
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from project import ROOT

from dicetalk import DiceTalkPipeline, load_audio, load_portrait
from dicetalk.emotion.options import NAMES

MINIATURE = ROOT / "miniature"
PICTURES = ROOT / "docs" / "images"
EXPECTED = ROOT / "tests" / "miniature" / "expected.png"
FACE = (56, 53, 208, 218)  # in demo/drawn_portrait.png
SHOWN = 128  # pixels of a face in the pictures
STEPS = 4  # of the frames that the test expects


def make(emotion, steps=25, seconds=None):
    """Frames (n, 64, 64, 3) uint8 of 12.5 a second, on a CPU in float32."""
    pipeline = DiceTalkPipeline.from_checkpoint(MINIATURE)
    portrait = load_portrait(ROOT / "demo" / "drawn_portrait.png", FACE, 64)
    speech = load_audio(ROOT / "demo" / "drawn_speech.flac")
    if seconds is not None:
        speech = speech[: int(seconds * 16000)]
    noise = torch.Generator().manual_seed(0)
    return np.asarray(pipeline(portrait, speech, emotion, num_inference_steps=steps, generator=noise).frames)


def expected():
    """What the test compares with: six frames of a second and a half, beside each other."""
    return np.concatenate(list(make("happy", STEPS, 1.5)[::3][:6]), axis=1)


def labelled(frames):
    """One frame of each emotion, with its name below, four in a row."""
    font, high = ImageFont.load_default(15), SHOWN + 24
    sheet = Image.new("RGB", (4 * SHOWN, 2 * high), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (name, frame) in enumerate(zip(NAMES, frames, strict=True)):
        x, y = place % 4 * SHOWN, place // 4 * high
        sheet.paste(Image.fromarray(frame).resize((SHOWN, SHOWN), Image.Resampling.BICUBIC), (x, y))
        draw.text((x + SHOWN / 2, y + SHOWN + 11), name, "black", font, "mm")
    return sheet


def main():
    made = [make(name) for name in NAMES]
    moving = [labelled(frames) for frames in zip(*made, strict=True)]
    moving[0].save(
        PICTURES / "miniature.webp", save_all=True, append_images=moving[1:], duration=80, loop=0, quality=70, method=6
    )
    moving[len(moving) // 2].save(PICTURES / "miniature.png", optimize=True)
    Image.fromarray(expected()).save(EXPECTED, optimize=True)
    for path in (PICTURES / "miniature.webp", PICTURES / "miniature.png", EXPECTED):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
