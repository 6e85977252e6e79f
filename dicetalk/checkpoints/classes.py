"""Which emotion and level each of the 22 classes of a checkpoint's emotion classifier is.

The published files do not say. Training here gives the classifier the order of `emotion.options.CLASSES`; for other
weights `python -m dicetalk emotion classes` measures it. Either way the order is kept in a file beside the checkpoint,
with a fingerprint of the classifier, so that it is never taken for that of other weights.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from ..emotion.options import CLASSES
from ..errors import InputError
from ..files import write_errors, written_beside
from ..model.emotion import EmotionClassifier
from .finding import Checkpoint
from .loading import read_state_dict

FILE = "emotion_classes.json"
TRAINED, MEASURED = "training", "measured"
_FORMAT = "dicetalk-emotion-classes"
_PREFIX = "classifier."


@dataclass(frozen=True)
class ClassOrder:
    """The order of a classifier's classes.

    Attributes:
        classes: (emotion, level) of each of the 22 outputs: those of CLASSES in some order.
        sureness: of each, how sure its emotion is, 0 to 1.
        source: "training", where it is known, or "measured".
    """

    classes: tuple[tuple[str, int], ...]
    sureness: tuple[float, ...]
    source: str

    def __post_init__(self):
        if sorted(self.classes) != sorted(CLASSES):
            raise InputError(f"The classes must be the {len(CLASSES)} of emotion and level, each once.")
        if len(self.sureness) != len(CLASSES) or not all(0 <= share <= 1 for share in self.sureness):
            raise InputError(f"The sureness must be {len(CLASSES)} numbers from 0 to 1.")
        if self.source not in (TRAINED, MEASURED):
            raise InputError(f"The source of the classes must be {TRAINED} or {MEASURED}.")


KNOWN_FROM_TRAINING = ClassOrder(CLASSES, (1.0,) * len(CLASSES), TRAINED)


def order_file(checkpoint: Checkpoint) -> Path:
    """Where the order of a checkpoint's classes is kept."""
    return checkpoint.root / FILE


def load_classifier(checkpoint: Checkpoint) -> EmotionClassifier:
    """The emotion classifier of a checkpoint, in float32 on the CPU.

    Raises:
        InputError: there is no emotion model, or its classifier has not 22 classes.
    """
    path = checkpoint.file("emo_model")
    tensors = {
        name.removeprefix(_PREFIX): tensor.float()
        for name, tensor in read_state_dict(path, "emo_model").items()
        if name.startswith(_PREFIX)
    }
    try:
        sizes = [tensors[f"{layer}.weight"].shape for layer in ("fc1", "fc2", "fc3")]
        classifier = EmotionClassifier(sizes[0][1], *(size[0] for size in sizes))
        classifier.load_state_dict(tensors)
    except (KeyError, IndexError, RuntimeError) as error:
        raise InputError(f"{path} holds no emotion classifier as published: fetch it again.") from error
    if sizes[-1][0] != len(CLASSES):
        raise InputError(f"The classifier of {path} has {sizes[-1][0]} classes, and the published one {len(CLASSES)}.")
    return classifier.eval().requires_grad_(False)


def load_order(checkpoint: Checkpoint, classifier: EmotionClassifier) -> ClassOrder | None:
    """The order that is kept beside a checkpoint; None where there is none, or only that of other weights.

    Raises:
        InputError: the file cannot be read.
    """
    path = order_file(checkpoint)
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != _FORMAT:
            raise ValueError("it is something else")
        order = ClassOrder(
            tuple((str(emotion), int(level)) for emotion, level, _ in record["classes"]),
            tuple(float(sureness) for _, _, sureness in record["classes"]),
            record["source"],
        )
        fits = record["classifier"] == fingerprint(classifier)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read as the order of emotion classes ({error}): delete it, and run "
            "`python -m dicetalk emotion classes` again."
        ) from error
    return order if fits else None


def save_order(order: ClassOrder, folder, classifier: EmotionClassifier) -> Path:
    """Keep the order of a classifier's classes in a checkpoint folder; returns the file."""
    path = Path(folder) / FILE
    rows = ",\n".join(
        json.dumps([*each, round(sure, 4)]) for each, sure in zip(order.classes, order.sureness, strict=True)
    )
    text = (
        f'{{"format": "{_FORMAT}", "source": "{order.source}", "classifier": "{fingerprint(classifier)}",\n'
        f'"classes": [\n{rows}\n]}}\n'
    )
    with written_beside(path) as part, write_errors(path):
        part.write_text(text, encoding="utf-8")
    return path


def fingerprint(classifier: EmotionClassifier) -> str:
    """Of the weights in half precision, so that a checkpoint converted to it keeps its order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(classifier.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().to(torch.float16).numpy().tobytes())
    return digest.hexdigest()[:32]
