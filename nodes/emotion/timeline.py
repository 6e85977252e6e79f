"""DICE-Talk Emotion Timeline."""

from collections import ChainMap
from dataclasses import replace

from comfy_api.latest import io

from ...dicetalk.emotion.options import EASINGS
from ...dicetalk.emotion.parsing import resolve
from ...dicetalk.emotion.text import Timed, parse_text
from ...dicetalk.errors import InputError
from ...dicetalk.script.words import as_rows
from ..preview import shown_emotion
from ..types import DiceTalk, Emotion, Words
from .files import emotion_library, fingerprint, named_in, validated
from .mix import INPUT_NAMES

_AS_WRITTEN = "as written"


class DiceTalkEmotionTimeline(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DiceTalkEmotionTimeline",
            display_name="DICE-Talk Emotion Timeline",
            category="DICE-Talk/emotion",
            description="Emotions placed in time, in the editor or as text. The first is held before its time, the "
            "last after its own. Without times, the text is one emotion for the whole clip.",
            search_aliases=["emotion keyframes", "emotion schedule", "change emotion over time", "emotion curve"],
            inputs=[
                DiceTalk.Input(
                    "dicetalk", tooltip="From Load DICE-Talk; the eight emotions are files of the checkpoint."
                ),
                io.String.Input(
                    "timeline",
                    multiline=True,
                    default="0s neutral; 1.5s happy:1.2",
                    placeholder="0s neutral; 1.5s happy:1.2 smooth; 4s (sad 0.7 + fear 0.3) step",
                    tooltip="Seconds of the video and the emotion there, with ; between them. Known are the eight, "
                    'saved emotions ("in quotes" when not plain words), and the inputs as emotion_a, emotion_b …; '
                    "happy:1.2 sets an intensity from 0 to 2, (sad 0.7 + fear 0.3) mixes. smooth, linear or step after "
                    "an emotion says how it is reached.",
                ),
                io.Combo.Input(
                    "easing",
                    options=[_AS_WRITTEN, *EASINGS],
                    default=_AS_WRITTEN,
                    tooltip="How each emotion is reached from the one before: as the text says, which is linear where "
                    "it says nothing, or one way for all. smooth is slow at both ends; step holds, then jumps.",
                ),
                io.Autogrow.Input(
                    "emotions",
                    optional=True,
                    template=io.Autogrow.TemplateNames(
                        Emotion.Input(
                            "emotion", tooltip="An emotion or a mix, called by this input's name in the text."
                        ),
                        names=INPUT_NAMES,
                        min=0,
                    ),
                    tooltip="Emotions that the text calls emotion_a, emotion_b and so on.",
                ),
                Words.Input(
                    "words",
                    optional=True,
                    tooltip="From DICE-Talk Script: the editor shows them once they were placed, in a run.",
                ),
            ],
            outputs=[Emotion.Output(display_name="emotion", tooltip="For DICE-Talk Sampler or Guider.")],
        )

    @classmethod
    def validate_inputs(cls, timeline, emotions=None):
        return validated(parse_text, timeline)

    @classmethod
    def fingerprint_inputs(cls, timeline, **_):
        # None: wired, not known yet
        return fingerprint(named_in(timeline))

    @classmethod
    def execute(cls, dicetalk, timeline, easing, emotions=None, words=None) -> io.NodeOutput:
        known = ChainMap(emotions or {}, emotion_library(dicetalk))
        try:
            tree = parse_text(timeline, known)
            if isinstance(tree, Timed) and easing != _AS_WRITTEN:
                tree = replace(tree, keys=tuple(replace(key, easing=easing) for key in tree.keys))
            emotion = resolve(tree, known, timeline)
        except InputError as error:
            raise InputError(f"timeline: {error}") from None
        picture = shown_emotion(emotion, dicetalk.priors, cls)
        seen = {"dicetalk_timeline": [timeline], "dicetalk_words": as_rows(words.words) if words else []}
        return io.NodeOutput(emotion, ui={**(picture.as_dict() if picture else {}), **seen})
