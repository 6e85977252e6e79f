"""DICE-Talk Emotion Wheel."""

from comfy_api.latest import io

from ...dicetalk.emotion.options import MAX_INTENSITY
from ...dicetalk.emotion.parsing import resolve
from ...dicetalk.emotion.text import Mixed, Named
from ..checks import require_finite
from ..preview import shown_emotion
from ..types import DiceTalk, Emotion
from .preset import known_emotion

# In the order of the wheel's rim, where the published emotions' residuals from neutral correlate best with their
# neighbours' (0.46 to 0.90).
MOODS = ("happy", "surprised", "fear", "sad", "angry", "disgusted", "contempt")


class DiceTalkEmotionWheel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DiceTalkEmotionWheel",
            display_name="DICE-Talk Emotion Wheel",
            category="DICE-Talk/emotion",
            description="Mixes the published emotions on a wheel: drag toward an emotion, and further out for more of "
            "it. The centre is neutral. The node uses the numbers; the wheel shows and sets them.",
            search_aliases=["emotion mixer", "emotion wheel", "mood wheel", "blend emotions", "expression", "emotion"],
            inputs=[
                DiceTalk.Input(
                    "dicetalk", tooltip="From Load DICE-Talk; the eight emotions are files of the checkpoint."
                ),
                *(
                    io.Float.Input(
                        mood,
                        default=1.0 if mood == "happy" else 0.0,
                        min=0.0,
                        max=1.0,
                        step=0.05,
                        round=0.01,
                        tooltip=f"The weight of {mood} in the mix. Weights are relative: 1 and 0.5 is the same as 0.5 "
                        "and 0.25. All 0 is neutral.",
                    )
                    for mood in MOODS
                ),
                io.Float.Input(
                    "intensity",
                    default=1.0,
                    min=0.0,
                    max=MAX_INTENSITY,
                    step=0.05,
                    round=0.01,
                    tooltip="Intensity of the whole mix: 0 is neutral, 1 the mix itself, up to 2 exaggerates it. On "
                    "the wheel it is the distance from the centre.",
                ),
            ],
            outputs=[
                Emotion.Output(
                    display_name="emotion",
                    tooltip="For DICE-Talk Sampler or Guider, or to place in DICE-Talk Emotion Timeline.",
                )
            ],
        )

    @classmethod
    def execute(cls, dicetalk, intensity, **weights) -> io.NodeOutput:
        require_finite(intensity=intensity, **weights)
        parts = tuple((weights[mood], Named(mood)) for mood in MOODS if weights[mood] != 0)
        if len(parts) > 1:
            tree: Mixed | Named = Mixed(parts, intensity=intensity)
        else:
            tree = Named(parts[0][1].name, intensity) if parts else Named("neutral")
        used = [*(part.name for _, part in parts), "neutral"]
        emotion = resolve(tree, {name: known_emotion(dicetalk, dicetalk.priors, name) for name in used})
        return io.NodeOutput(emotion, ui=shown_emotion(emotion, dicetalk.priors, cls))
