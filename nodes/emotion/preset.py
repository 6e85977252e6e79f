"""DICE-Talk Emotion."""

from comfy_api.latest import io

from ...dicetalk.emotion.options import MAX_INTENSITY, MAX_STRENGTH, NAMES
from ...dicetalk.emotion.text import Named, format_text
from ...dicetalk.errors import InputError
from ..preview import shown_emotion
from ..types import DiceTalk, Emotion
from .files import emotion_library, fingerprint, saved_emotions


class DiceTalkEmotion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DiceTalkEmotion",
            display_name="DICE-Talk Emotion",
            category="DICE-Talk/emotion",
            description="One of the eight emotions that DICE-Talk was published with, or a saved one.",
            search_aliases=["emotion", "expression", "mood", "happy", "sad", "angry", "facial expression"],
            inputs=[
                DiceTalk.Input(
                    "dicetalk", tooltip="From Load DICE-Talk; the eight emotions are files of the checkpoint."
                ),
                io.Combo.Input(
                    "emotion",
                    options=[*NAMES, *saved_emotions()],
                    default="happy",
                    tooltip="Which emotion: the eight, then those saved in models/dicetalk_emotions.",
                ),
                io.Float.Input(
                    "intensity",
                    default=1.0,
                    min=0.0,
                    max=MAX_INTENSITY,
                    step=0.05,
                    display_mode=io.NumberDisplay.slider,
                    tooltip="0 is neutral, 1 the emotion itself, up to 2 exaggerates it.",
                ),
                *variation_inputs(),
            ],
            outputs=[Emotion.Output(display_name="emotion", tooltip="For DICE-Talk Sampler or Guider.")],
        )

    @classmethod
    def validate_inputs(cls, emotion):
        # Looked up again, since files may have come after ComfyUI started.
        if emotion is None or emotion in NAMES or emotion in list(saved_emotions()):
            return True
        return f"There is no emotion {emotion!r}: choose one of {', '.join([*NAMES, *list(saved_emotions())[:20]])}."

    @classmethod
    def fingerprint_inputs(cls, emotion, **_):
        return fingerprint(saved_emotions() if emotion is None else [emotion])  # None: wired, not known yet

    @classmethod
    def execute(cls, dicetalk, emotion, intensity, variation_strength=0.0, variation_seed=0) -> io.NodeOutput:
        library = emotion_library(dicetalk)
        value = known_emotion(dicetalk, library, emotion)
        if intensity != 1:
            neutral = known_emotion(dicetalk, library, "neutral")
            value = value.with_intensity(neutral, intensity).renamed(format_text(Named(emotion, intensity)))
        value = value.varied(variation_seed, variation_strength)
        return io.NodeOutput(value, ui=shown_emotion(value, dicetalk.priors, cls))


def variation_inputs():
    return [
        io.Float.Input(
            "variation_strength",
            default=0.0,
            min=0.0,
            max=MAX_STRENGTH,
            step=0.05,
            display_mode=io.NumberDisplay.slider,
            optional=True,
            advanced=True,
            tooltip="How far the emotion may vary within its spread: 0 is the emotion itself, 1 draws from its "
            "Gaussian. The eight published emotions have no spread, so on them it changes nothing; a mix by moments "
            "has the spread between its parts.",
        ),
        io.Int.Input(
            "variation_seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=io.ControlAfterGenerate.fixed,
            optional=True,
            advanced=True,
            tooltip="Which variation is drawn, when variation_strength is not 0.",
        ),
    ]


def known_emotion(dicetalk, library, name):
    """The emotion of that name, else InputError that says how to get it."""
    if name in library:
        return library[name]
    remedy = (
        f"click Download in Load DICE-Talk, which puts it into {dicetalk.checkpoint.root}"
        if name in NAMES
        else "save it by Save DICE-Talk Emotion"
    )
    raise InputError(f"emotion: the checkpoint {dicetalk.checkpoint.name} has no emotion {name!r}: {remedy}.")
