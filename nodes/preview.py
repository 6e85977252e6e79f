"""The pictures that nodes show of what they did."""

import numpy as np
import torch
from comfy_api.latest import ui

from ..dicetalk.checkpoints.finding import resolve_checkpoint
from ..dicetalk.checkpoints.priors import load_priors
from ..dicetalk.emotion.options import NAMES
from ..dicetalk.emotion.parsing import to_text
from ..dicetalk.emotion.picture import emotion_picture, timeline_picture
from ..dicetalk.emotion.timeline import EmotionTimeline
from ..dicetalk.errors import InputError
from .loader import checkpoint_roots


def shown(picture, cls):
    """The `ui` of a NodeOutput that shows a PIL image in the node."""
    return ui.PreviewImage(torch.from_numpy(np.array(picture, dtype=np.float32) / 255)[None], cls=cls)


def shown_emotion(emotion, priors, cls):
    """The `ui` that shows an emotion by the eight, or none where the priors hold only neutral."""
    if "neutral" not in priors or len(priors.keys() & set(NAMES)) == 1:
        return None
    draw = timeline_picture if isinstance(emotion, EmotionTimeline) else emotion_picture
    return shown(draw(emotion, priors, to_text(emotion)), cls)


def shown_saved(emotion, cls):
    """`shown_emotion` for a node without a checkpoint: by the eight of the first one found, or none without any."""
    try:
        priors = load_priors(resolve_checkpoint(roots=checkpoint_roots()).folder("emotions"))
    except (InputError, OSError):  # a picture is no reason to fail
        return None
    return shown_emotion(emotion, priors, cls)
