"""The pictures that nodes show of what they did."""

import comfy.utils
import numpy as np
import torch
from comfy_api.latest import ui
from PIL import Image

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


def all_shown(pictures, cls):
    """The `ui` of a NodeOutput that shows PIL images of any sizes in the node; None of none."""
    images = [image for picture in pictures for image in shown(picture, cls).as_dict()["images"]]
    return {"images": images} if images else None


def show_while_running(chart, preview, done, total):
    """Show a PIL image as the preview of the node that is being executed, to the right of ComfyUI's own preview.

    Args:
        chart: the image.
        preview: what ComfyUI's previewer gives, a PIL image; None where previews are off.
        done, total: steps, for the progress bar.
    """
    if isinstance(preview, Image.Image):  # other packs replace the previewer by their own
        left = preview.resize((round(preview.width * chart.height / preview.height), chart.height))
        both = Image.new("RGB", (left.width + chart.width, chart.height))
        both.paste(left, (0, 0))
        both.paste(chart, (left.width, 0))
        chart = both
    comfy.utils.ProgressBar(total).update_absolute(done, total, ("JPEG", chart, None))


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
