"""DICE-Talk Script."""

import logging

import comfy.model_management
import comfy.utils
from comfy_api.latest import io

from ...dicetalk.emotion.parsing import to_text
from ...dicetalk.emotion.timeline import EmotionTimeline
from ...dicetalk.media.downmix import of_waveform
from ...dicetalk.model.audio import resample
from ...dicetalk.script.placing import METHODS, place_script
from ...dicetalk.script.subtitles import cues_of, to_srt
from ...dicetalk.script.text import parse_script
from ...dicetalk.script.timeline import FADE, LONGEST_FADE, NEUTRAL, script_emotion
from ..checks import require_audio, require_finite
from ..preview import shown_emotion
from ..types import DiceTalk, Emotion, SpokenWords, Words
from .files import emotion_library, fingerprint, named_in, validated


class DiceTalkScript(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DiceTalkScript",
            display_name="DICE-Talk Script",
            category="DICE-Talk/emotion",
            description="What is said, with emotions in brackets. The words are found in the speech, each emotion "
            "comes with its first word, and the words become subtitles.",
            search_aliases=[
                "subtitles",
                "captions",
                "srt",
                "transcript",
                "emotion tags",
                "dialogue script",
                "alignment",
            ],
            inputs=[
                DiceTalk.Input(
                    "dicetalk", tooltip="From Load DICE-Talk; its Whisper finds the words, and its emotions are known."
                ),
                io.Audio.Input(
                    "audio", tooltip="The speech, from DICE-Talk Audio Features, so that times are those of the video."
                ),
                io.String.Input(
                    "script",
                    multiline=True,
                    default="[happy] Hello! [neutral] I am so glad to see you here today.",
                    placeholder="[happy] Hello there. [sad 0.7] I have to go.",
                    tooltip="The words as they are spoken, and before each change an emotion in brackets: one of the "
                    "eight, a saved one or a mix such as (sad 0.7 + fear 0.3); a number after it is its intensity, 0 "
                    "to 2.",
                ),
                io.Float.Input(
                    "fade",
                    default=FADE,
                    min=0.0,
                    max=LONGEST_FADE,
                    step=0.05,
                    tooltip="Seconds over which an emotion comes, before its first word; 0 jumps.",
                ),
                io.Combo.Input(
                    "place_words",
                    options=list(METHODS),
                    default=METHODS[0],
                    advanced=True,
                    tooltip="How words are found in the speech: by Whisper, which needs its tokenizer.json, or by the "
                    "sound alone. auto takes Whisper where it can.",
                ),
                Emotion.Input(
                    "emotion",
                    optional=True,
                    tooltip="The emotion of the words before the first bracket; neutral without it.",
                ),
            ],
            outputs=[
                Emotion.Output(display_name="emotion", tooltip="For DICE-Talk Sampler or Guider."),
                io.String.Output(
                    display_name="timeline", tooltip="The same as text, for DICE-Talk Emotion Timeline's timeline."
                ),
                Words.Output(
                    display_name="words", tooltip="The words with their times, which DICE-Talk Emotion Timeline shows."
                ),
                io.String.Output(
                    display_name="subtitles", tooltip="Subtitles in SRT format, for DICE-Talk Video or a file."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, script):
        return validated(parse_script, script)

    @classmethod
    def fingerprint_inputs(cls, script, **_):
        # None: wired, not known yet
        return fingerprint(named_in(script))

    @classmethod
    def execute(cls, dicetalk, audio, script, fade, place_words, emotion=None) -> io.NodeOutput:
        require_finite(fade=fade)
        known = emotion_library(dicetalk)
        parsed = parse_script(script, known)
        waveform, rate = require_audio(audio, "audio")
        mono, _, notes = of_waveform(waveform[0], "audio")
        for note in notes:
            logging.warning("DICE-Talk Script: %s", note)
        bar = comfy.utils.ProgressBar(100)

        def on_progress(done, total):
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update_absolute(round(100 * done / max(total, 1e-9)), 100)

        words, _, note = place_script(
            parsed, resample(mono, rate).numpy(), dicetalk.checkpoint, place_words, on_progress=on_progress
        )
        if note:
            logging.warning("DICE-Talk Script: %s", note)
        made = script_emotion(parsed, words, known, NEUTRAL if emotion is None else emotion, fade)
        text = to_text(made)
        if not isinstance(made, EmotionTimeline):
            text = f"0s {text}"
        srt = to_srt(cues_of(words))
        return io.NodeOutput(made, text, SpokenWords(tuple(words)), srt, ui=shown_emotion(made, dicetalk.priors, cls))
