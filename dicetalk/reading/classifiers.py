"""Emotion classifiers that a person supplies: Hugging Face model folders for images of faces or for voices.

A folder holds what `save_pretrained` writes: config.json, safetensors weights, and the preprocessor's JSON. Nothing is
fetched, and no code in the folder is ever run. The model's labels are mapped to the eight emotions.
"""

import re
from pathlib import Path

import numpy as np

from ..emotion.options import NAMES
from ..emotion.words import NAME_OF_FORM, NAME_OF_NEAR
from ..errors import InputError
from .clip import SAMPLE_RATE

_EMOTIONS = {**NAME_OF_FORM, **NAME_OF_NEAR}
_DENIALS = {"not", "no", "non", "without", "un"}
_LEAST_KNOWN = 2

_FACE_MARGIN = 0.1


def map_labels(labels, folder="the model"):
    """(labels, 8) matrix of 0 and 1 that sums a model's probabilities into those of the eight emotions.

    Labels that are none of the eight ("bored", "other") have empty rows and are left out.

    Args:
        labels: the model's labels, in the order of its classes.

    Raises:
        InputError: fewer than two of the eight are among the labels.
    """
    matrix = np.zeros((len(labels), len(NAMES)))
    for row, label in enumerate(labels):
        name = emotion_of(label)
        if name:
            matrix[row, NAMES.index(name)] = 1
    if matrix.any(0).sum() < _LEAST_KNOWN:
        shown = ", ".join(repr(str(label)[:24]) for label in list(labels)[:10]) + (", …" if len(labels) > 10 else "")
        raise InputError(
            f"{folder}: its labels are no emotions ({shown}). Use a model of emotions, or write their names (such as "
            f"{', '.join(NAMES[:4])}) into id2label of its config.json."
        )
    return matrix


def emotion_of(label):
    """The one of the eight emotions that a label names, None for none.

    Beside its name a label may say who shows it, or how strongly: "OAF_angry" (TESS), "female_happy", "Sad-strong".
    """
    words = re.findall(r"[^\W\d_]+", str(label).casefold())
    whole = _EMOTIONS.get("".join(words)) or _EMOTIONS.get(re.sub(r"^(fe)?male", "", "".join(words)))
    if whole or _DENIALS & set(words):
        return whole
    named = {_EMOTIONS[word] for word in words if word in _EMOTIONS}
    return named.pop() if len(named) == 1 else None


def to_emotions(probabilities, matrix):
    """(n, labels) probabilities of a model → (n, 8), rows sum to 1.

    A model says which of the emotions that it knows is shown, not whether it is one of these: the emotions without a
    label get 1/8 each, and the others share the rest. Rows with only other labels ("bored") become even.
    """
    known = matrix.any(0)
    shares = np.asarray(probabilities, dtype=np.float64) @ matrix
    total = shares.sum(1, keepdims=True)
    even = known / known.sum()
    shares = np.where(total > 1e-6, shares / np.maximum(total, 1e-6), even)
    trust = np.minimum(total, 1)
    shares = trust * shares + (1 - trust) * even
    return np.where(known, shares * known.sum() / len(NAMES), 1 / len(NAMES))


class Classifier:
    """A model folder, loaded.

    Args:
        folder: the model's folder.
        kind: "image" or "audio".
        device: where it computes.

    Raises:
        InputError: names the folder, and what is wrong with it.
    """

    def __init__(self, folder, kind, device="cpu"):
        import transformers

        self.folder, self.device = Path(folder), device
        if not (self.folder / "config.json").is_file():
            raise InputError(f"{folder}: no model folder; config.json is not there.")
        if not any(self.folder.glob("*.safetensors")):
            raise InputError(
                f"{folder}: it holds no .safetensors file, and weights of other kinds are not read. Save the model "
                "again with save_pretrained."
            )
        loader, preprocessor = {
            "image": (transformers.AutoModelForImageClassification, transformers.AutoImageProcessor),
            "audio": (transformers.AutoModelForAudioClassification, transformers.AutoFeatureExtractor),
        }[kind]
        only = {"local_files_only": True, "trust_remote_code": False}
        # A configuration could name attention kernels, which transformers would fetch and run; an argument goes before.
        try:
            self.preprocess = preprocessor.from_pretrained(self.folder, **only)
            self.model, loaded = loader.from_pretrained(
                self.folder, use_safetensors=True, output_loading_info=True, attn_implementation="eager", **only
            )
            labels = [self.model.config.id2label[number] for number in range(self.model.config.num_labels)]
        except Exception as error:  # transformers raises many kinds, by version, for folders it cannot use
            reason = " ".join(str(error).split())[:300]
            raise InputError(f"{folder}: not a usable {kind}-classification model ({reason}).") from error
        if loaded["missing_keys"]:
            raise InputError(f"{folder}: its weights lack {', '.join(sorted(loaded['missing_keys'])[:3])}.")
        self.matrix = map_labels(labels, folder)
        self.model = self.model.float().to(device).eval()

    def _emotions(self, inputs):
        import torch

        with torch.inference_mode():
            logits = self.model(**{name: value.to(self.device) for name, value in inputs.items()}).logits
        return to_emotions(logits.float().softmax(-1).cpu().numpy(), self.matrix)

    def faces(self, pictures):
        """(n, 8) for PIL images of faces."""
        return self._emotions(self.preprocess(images=list(pictures), return_tensors="pt"))

    def voice(self, samples):
        """(8,) for (samples,) mono 16 kHz."""
        rate = getattr(self.preprocess, "sampling_rate", SAMPLE_RATE)
        if rate != SAMPLE_RATE:
            import soxr

            samples = soxr.resample(samples, SAMPLE_RATE, rate)
        return self._emotions(self.preprocess(samples, sampling_rate=rate, return_tensors="pt"))[0]


def face_picture(frame, seconds, choice):
    """The face of a frame that is followed, as a PIL image; None where there is none.

    Args:
        frame: (height, width, 3) uint8 RGB.
        seconds: when it is shown.
        choice: the clip's `clip_files.FaceChoice`.
    """
    from PIL import Image

    from ..media.faces import find_faces
    from ..media.portrait import face_crop

    picture = Image.fromarray(frame)
    small = picture.copy()
    small.thumbnail((480, 480))  # enough for a face that shows an expression, and quick to search
    scale = picture.width / small.width
    boxes = [[side * scale for side in box] for box in find_faces(small)]
    number = choice.choose(seconds, boxes)
    return None if number is None else picture.crop(face_crop(boxes[number], picture.size, _FACE_MARGIN))
