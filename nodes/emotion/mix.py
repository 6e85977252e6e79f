"""DICE-Talk Emotion Mix."""

import re

from comfy_api.latest import io

from ...dicetalk.emotion.mixing import mix
from ...dicetalk.emotion.options import METHODS
from ...dicetalk.emotion.parsing import to_text
from ...dicetalk.emotion.picture import mix_picture
from ...dicetalk.emotion.text import format_number
from ...dicetalk.emotion.timeline import EmotionTimeline
from ...dicetalk.errors import InputError
from ..preview import shown
from ..types import Emotion
from .files import validated
from .preset import variation_inputs

# What an emotion input is called when there are several; the timeline's text names them so.
INPUT_NAMES = [f"emotion_{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
_LONGEST_NAME = 200


class DiceTalkEmotionMix(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DiceTalkEmotionMix",
            display_name="DICE-Talk Emotion Mix",
            category="DICE-Talk/emotion",
            description="Mixes emotions by weights. The node grows: a new input appears when the last one is wired.",
            search_aliases=["blend emotions", "combine emotions", "emotion average", "compound emotion"],
            inputs=[
                io.Autogrow.Input(
                    "emotions",
                    template=io.Autogrow.TemplateNames(
                        Emotion.Input("emotion", tooltip="An emotion or a mix to mix in; not a timeline."),
                        names=INPUT_NAMES,
                        min=1,
                    ),
                    tooltip="The emotions to mix.",
                ),
                io.String.Input(
                    "weights",
                    default="",
                    placeholder="0.7, 0.3",
                    tooltip="One number for each wired emotion, in their order, such as 0.7, 0.3. They are relative: "
                    "7, 3 is the same. Empty mixes equal parts.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default=METHODS[0],
                    tooltip="barycentre: the emotion between them. moments: the same mean, and the spread between them "
                    "for variations. tokens: each goes through the Emotion Bank on its own, and what comes out is "
                    "mixed; it takes emotions with different bank options.",
                ),
                *variation_inputs(),
            ],
            outputs=[Emotion.Output(display_name="emotion", tooltip="For DICE-Talk Sampler or Guider.")],
        )

    @classmethod
    def validate_inputs(cls, weights, emotions=None):
        return validated(read_weights, weights)

    @classmethod
    def execute(cls, emotions, weights, method, variation_strength=0.0, variation_seed=0) -> io.NodeOutput:
        for socket, emotion in emotions.items():
            if isinstance(emotion, EmotionTimeline):
                raise InputError(
                    f"{socket} is a timeline, and only single emotions can be mixed: place the mix in time."
                )
        numbers = read_weights(weights) or [1.0] * len(emotions)
        if len(numbers) != len(emotions):
            raise InputError(
                f"weights must have one number for each of the {len(emotions)} wired emotions, or none for equal "
                f"parts; it has {len(numbers)}."
            )
        mixed = mix(emotions.values(), numbers, method)
        if not mixed.name:
            mixed = mixed.renamed(_name(emotions.values(), numbers, method))
        mixed = mixed.varied(variation_seed, variation_strength)
        labels = [to_text(emotion) for emotion in emotions.values()]
        return io.NodeOutput(mixed, ui=shown(mix_picture(labels, numbers, to_text(mixed)), cls))


def read_weights(text):
    """The numbers of a text that has commas, semicolons or spaces between them; InputError where one is no number."""
    numbers = []
    for match in re.finditer(r"[^\s,;]+", text):
        try:
            numbers.append(float(match.group()))
        except ValueError:
            raise InputError(
                f'weights, at character {match.start() + 1}, "{match.group()[:24]}": this is not a number. Write one '
                "for each emotion, such as 0.7, 0.3."
            ) from None
    return numbers


def _name(emotions, weights, method):
    """The mix in the text form of emotions, where that is not too long to read."""
    parts = " + ".join(
        to_text(emotion) + ("" if weight == 1 else f" {format_number(weight)}")
        for emotion, weight in zip(emotions, weights, strict=True)
    )
    name = ("" if method == METHODS[0] else method) + f"({parts})"
    return name if len(name) <= _LONGEST_NAME else f"mix of {len(weights)} emotions"
