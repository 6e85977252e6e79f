"""The face of a clip: MediaPipe's blendshapes of its frames, and which of several faces is followed."""

import math
from pathlib import Path

import numpy as np

from ..errors import InputError
from .clip import BLENDSHAPES, PATIENCE

_PIECE = 1.0  # seconds of faces that are handed on at a time
_CROP_MARGIN = 1.0  # of a face's size, on every side of the crop that is handed on
_SEARCH_AGAIN = 0.5, 8.0  # seconds after a search in vain: at first, and at most, as a search takes long
_MOST_SEARCHED = 4  # faces of a search that are tried


# Which face


class FaceChoice:
    """Chooses one of the faces of each frame: the largest, and then the same one for as long as it is seen.

    A face is the same when its box overlaps that of the frame before by a third of their union. One that is lost is
    waited for half a second; then the largest is taken again.
    """

    def __init__(self):
        self._several = 0
        self._box = self._seen = None

    def choose(self, seconds, boxes):
        """The number of the chosen face, None where there is none, among boxes (x1, y1, x2, y2)."""
        self._several += len(boxes) > 1
        if not boxes:
            return None
        if self._box is not None:
            overlaps = [_overlap(self._box, box) for box in boxes]
            number = int(np.argmax(overlaps))
            if overlaps[number] < 1 / 3 and seconds - self._seen < PATIENCE:
                return None
            if overlaps[number] >= 1 / 3:
                self._box, self._seen = boxes[number], seconds
                return number
        number = max(range(len(boxes)), key=lambda each: _area(boxes[each]))
        self._box, self._seen = boxes[number], seconds
        return number

    def notes(self):
        """A sentence where there were several faces to choose from, in a list."""
        frames = f"{self._several} frames show" if self._several > 1 else "A frame shows"
        return [f"{frames} several faces; the largest was followed."] if self._several else []


def _area(box):
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _overlap(a, b):
    shared = _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    return shared / max(_area(a) + _area(b) - shared, 1e-9)


def faces_stream(frames):
    """`Clip.blendshapes` and `Clip.notes` of (seconds, [(box, name → value), ...]) for each frame, as `frames()` yields
    them."""
    choice = FaceChoice()

    def stream():
        nonlocal choice
        choice, times, rows = FaceChoice(), [], []
        for seconds, faces in frames():
            number = choice.choose(seconds, [box for box, _ in faces])
            values = {} if number is None else faces[number][1]
            times.append(seconds)
            rows.append([values.get(name, 0.0) if values else math.nan for name in BLENDSHAPES])
            if times[-1] - times[0] >= _PIECE:
                yield np.array(times), np.array(rows, dtype=np.float32)
                times, rows = [], []
        if times:
            yield np.array(times), np.array(rows, dtype=np.float32)

    return stream, lambda: choice.notes()


class SmallFaces:
    """Faces that a landmarker overlooks since they are small: they are searched for, and a crop is handed on.

    MediaPipe finds none whose side is less than about an eighth of the picture's longer side. A face that was found is
    followed from frame to frame without another search.

    Args:
        look: (height, width, 3) uint8 RGB → [(box, name → value), ...], boxes x1, y1, x2, y2 in pixels.
    """

    def __init__(self, look):
        self._look = look
        self._box, self._due, self._wait = None, -math.inf, _SEARCH_AGAIN[0]

    def find(self, seconds, frame):
        """What `look` finds in a crop of a frame in which it finds nothing as a whole; boxes are the frame's."""
        from PIL import Image

        from ..media.faces import find_faces

        boxes = [self._box] if self._box is not None else []
        for followed in (True, False):
            for box in boxes:
                if faces := self._in_crop(frame, box):
                    self._box, self._wait = faces[0][0], _SEARCH_AGAIN[0]
                    return faces
            if followed:
                if seconds < self._due:
                    return []
                boxes = find_faces(Image.fromarray(frame))[:_MOST_SEARCHED]
        self._box, self._due = None, seconds + self._wait
        self._wait = min(2 * self._wait, _SEARCH_AGAIN[1])
        return []

    def _in_crop(self, frame, box):
        height, width = frame.shape[:2]
        margin = _CROP_MARGIN * max(box[2] - box[0], box[3] - box[1])
        left, top = max(0, round(box[0] - margin)), max(0, round(box[1] - margin))
        right, bottom = min(width, round(box[2] + margin)), min(height, round(box[3] + margin))
        crop = np.ascontiguousarray(frame[top:bottom, left:right])
        shift = left, top, left, top
        return [(tuple(side + by for side, by in zip(own, shift)), shapes) for own, shapes in self._look(crop)]


def mediapipe_stream(pictures, model):
    """`Clip.blendshapes` and `Clip.notes` of pictures, a function like `Clip.frames`, by MediaPipe's model file."""
    try:
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision
    except ImportError as error:
        raise InputError(
            f"{model} needs the package mediapipe ({error}): install it, or give the landmarks as a file."
        ) from error
    if not Path(model).is_file():
        raise InputError(f"{model}: no such file; MediaPipe's face_landmarker.task is needed.")

    def landmarker(mode):
        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(model)),
            running_mode=mode,
            num_faces=4,
            output_face_blendshapes=True,
        )
        try:
            return vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{model}: not a model of MediaPipe's ({' '.join(str(error).split())[:200]}).") from error

    def frames():
        with landmarker(vision.RunningMode.VIDEO) as whole, landmarker(vision.RunningMode.IMAGE) as part:
            small = SmallFaces(lambda crop: faces_of(part.detect(picture(crop)), crop))
            stamp = -1
            for seconds, frame in pictures():
                stamp = max(stamp + 1, round(seconds * 1000))  # MediaPipe refuses two of the same
                faces = faces_of(whole.detect_for_video(picture(frame), stamp), frame)
                yield seconds, faces or small.find(seconds, frame)

    def picture(frame):
        return mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=frame)

    def faces_of(found, frame):
        return [
            (_box(points, frame), {shape.category_name: shape.score for shape in shapes})
            for points, shapes in zip(found.face_landmarks, found.face_blendshapes)
        ]

    return faces_stream(frames)


def _box(points, frame):
    height, width = frame.shape[:2]
    x, y = [width * point.x for point in points], [height * point.y for point in points]
    return min(x), min(y), max(x), max(y)
