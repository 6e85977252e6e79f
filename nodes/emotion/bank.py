"""DICE-Talk Emotion Bank."""

import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image

from ...dicetalk.emotion.drawing import PAPER
from ...dicetalk.emotion.heat_map import correlation_image, numbers_text, usage_image
from ...dicetalk.emotion.options import DEFAULT_TOP_K, MAX_TOP_K, MODES, TEMPERATURES, BankOptions
from ...dicetalk.emotion.parsing import to_text
from ...dicetalk.emotion.timeline import EmotionTimeline
from ...dicetalk.errors import InputError
from ...dicetalk.model.bank import correlation
from ..types import DiceTalk, Emotion
from .mix import INPUT_NAMES
from .preset import known_emotion

_MOST_SHOWN = 16
_LONGEST_TITLE = 60


class DiceTalkEmotionBank(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DiceTalkEmotionBank",
            display_name="DICE-Talk Emotion Bank",
            category="DICE-Talk/emotion",
            description="Sets how an emotion reads the codes of the Emotion Bank, and shows which codes it uses and "
            "how it correlates with others there.",
            search_aliases=["codebook", "emotion retrieval", "emotion inspector", "emotion heat map", "top-k"],
            inputs=[
                DiceTalk.Input("dicetalk", tooltip="From Load DICE-Talk; it holds the Emotion Bank."),
                Emotion.Input(
                    "emotion", tooltip=f"An emotion, a mix, or a timeline, of which the first {_MOST_SHOWN} are shown."
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default=MODES[0],
                    tooltip="full: every code, as published. nearest: only the code nearest to the emotion, the "
                    "published retrieval. top-k: the nearest few.",
                ),
                io.Int.Input(
                    "top_k",
                    default=DEFAULT_TOP_K,
                    min=1,
                    max=MAX_TOP_K,
                    tooltip="How many of the nearest codes are read in the mode top-k; the others ignore it.",
                ),
                io.Float.Input(
                    "temperature",
                    default=1.0,
                    min=TEMPERATURES[0],
                    max=TEMPERATURES[1],
                    step=0.05,
                    tooltip="Of the attention over the codes: 1 as published, lower is sharper, higher more even.",
                ),
                io.Autogrow.Input(
                    "compare",
                    optional=True,
                    template=io.Autogrow.TemplateNames(
                        Emotion.Input("emotion", tooltip="An emotion or a mix to compare with; not a timeline."),
                        names=INPUT_NAMES[:_MOST_SHOWN],
                        min=0,
                    ),
                    tooltip="Emotions to compare with in the heat map; the checkpoint's own when none is wired.",
                ),
            ],
            outputs=[
                Emotion.Output(
                    display_name="emotion", tooltip="The emotion with these bank options, for Sampler or Guider."
                ),
                io.Image.Output(
                    display_name="heat_map",
                    tooltip="Usage of the codes by each emotion, by each head for the first, and the correlation of "
                    "the emotions' usage as it differs from neutral's.",
                ),
                io.String.Output(
                    display_name="numbers",
                    tooltip="What the heat map shows, as CSV: a table of the usage of each code, averaged and by each "
                    "head, and below it one of the correlations.",
                ),
            ],
        )

    @classmethod
    def execute(cls, dicetalk, emotion, mode, top_k, temperature, compare=None) -> io.NodeOutput:
        bank = BankOptions(mode, top_k, temperature)
        for socket, other in (compare or {}).items():
            if isinstance(other, EmotionTimeline):
                raise InputError(f"{socket} is a timeline, and only single emotions can be compared.")
        emotion = emotion.with_bank(bank)
        priors = dicetalk.priors
        neutral = known_emotion(dicetalk, priors, "neutral").with_bank(bank)
        own = list(dict.fromkeys(_singles(emotion)))[:_MOST_SHOWN]
        others = (compare or priors).values()
        singles = [other.with_bank(bank) for other in others if not isinstance(other, EmotionTimeline)]
        shown = list(dict.fromkeys([*own, *singles]))
        usage = dicetalk.bank_usage([*shown, neutral])
        usage, neutral, labels = usage[:-1], usage[-1], [to_text(each) for each in shown]
        matrix = correlation(usage.reshape(len(usage), -1), neutral.reshape(-1))
        picture = _picture(usage, matrix, labels)
        heat_map = torch.from_numpy(np.array(picture, dtype=np.float32) / 255)[None]
        return io.NodeOutput(
            emotion, heat_map, numbers_text(usage, matrix, labels), ui=ui.PreviewImage(heat_map, cls=cls)
        )


def _singles(emotion):
    return [key.emotion for key in emotion.keys] if isinstance(emotion, EmotionTimeline) else [emotion]


def _picture(usage, matrix, labels):
    """Three heat maps, one below the other.

    Args:
        usage: (N, heads, codes) of the emotions; the first one's heads are shown.
        matrix: (N, N) correlations.
        labels: N texts.
    """
    heads = [f"head {head}" for head in range(usage.shape[1])]
    return _stacked(
        [
            usage_image(usage.mean(1), labels, "Usage of the codes, in times of even use"),
            usage_image(usage[0], heads, f"Usage by each head: {labels[0][:_LONGEST_TITLE]}"),
            correlation_image(matrix, labels, "Correlation of the usage, as it differs from neutral's"),
        ]
    )


def _stacked(pictures):
    size = max(picture.width for picture in pictures), sum(picture.height for picture in pictures)
    stacked, top = Image.new("RGB", size, PAPER), 0
    for picture in pictures:
        stacked.paste(picture, (0, top))
        top += picture.height
    return stacked
