"""DICE-Talk Emotion."""

from comfy_api.latest import io

from ..dicetalk.emotion import NAMES
from ..dicetalk.errors import InputError
from .types import DiceTalk, Emotion


class DiceTalkEmotion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DiceTalkEmotion",
            display_name="DICE-Talk Emotion",
            category="DICE-Talk",
            description="One of the eight emotions that DICE-Talk was published with.",
            search_aliases=["emotion", "expression", "mood", "happy", "sad", "angry"],
            inputs=[
                DiceTalk.Input("dicetalk", tooltip="From Load DICE-Talk; the emotions are files of the checkpoint."),
                io.Combo.Input("emotion", options=list(NAMES), default="happy", tooltip="Which emotion."),
                io.Float.Input(
                    "intensity",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    display_mode=io.NumberDisplay.slider,
                    tooltip="0 is neutral, 1 the emotion as published, up to 2 exaggerates it.",
                ),
            ],
            outputs=[Emotion.Output(display_name="emotion", tooltip="For DICE-Talk Sampler or Guider.")],
        )

    @classmethod
    def execute(cls, dicetalk, emotion, intensity) -> io.NodeOutput:
        priors = dicetalk.priors
        for name in (emotion, "neutral"):
            if name not in priors:
                raise InputError(
                    f"The checkpoint {dicetalk.checkpoint.name} has no emotion {name!r}: fetch the emotions with "
                    "`python -m dicetalk download --only emotions`."
                )
        value = priors[emotion]
        return io.NodeOutput(value if intensity == 1 else value.with_intensity(priors["neutral"], intensity))
