"""DICE-Talk Audio Features."""

import logging

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io

from ..dicetalk.emotion.options import FPS
from ..dicetalk.errors import InputError
from ..dicetalk.media.downmix import of_waveform, quiet
from ..dicetalk.memory import require_memory
from ..dicetalk.model.audio import SAMPLE_RATE, resample
from .checks import require_audio, require_finite
from .types import Audio, DiceTalk, SpeechTokens


class DiceTalkAudioFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DiceTalkAudioFeatures",
            display_name="DICE-Talk Audio Features",
            category="DICE-Talk/input",
            description="Turns speech into the UNet's audio input: one set of tokens per video frame (12.5 a second).",
            search_aliases=["speech", "lip sync", "whisper", "talking head", "audio driven"],
            inputs=[
                DiceTalk.Input("dicetalk", tooltip="From Load DICE-Talk."),
                io.Audio.Input("audio", tooltip="Speech; any sampling rate, mixed to mono for the model."),
                io.Float.Input(
                    "start",
                    default=0.0,
                    min=0.0,
                    max=86400.0,
                    step=0.01,
                    tooltip="Where the part to use starts, in seconds.",
                ),
                io.Float.Input(
                    "length",
                    default=0.0,
                    min=0.0,
                    max=86400.0,
                    step=0.01,
                    tooltip="How long the part is, in seconds; 0 means to the end.",
                ),
            ],
            outputs=[
                Audio.Output(display_name="audio_features", tooltip="For DICE-Talk Sampler or Guider."),
                io.Int.Output(display_name="frames", tooltip="Number of video frames at 12.5 fps."),
                io.Float.Output(display_name="seconds", tooltip="Length of the video in seconds."),
                io.Audio.Output(
                    display_name="audio",
                    tooltip="The part that is used, whole, and silence to the end of the last frame; for "
                    "DICE-Talk Video or Create Video.",
                ),
                io.Float.Output(
                    display_name="fps",
                    tooltip="12.5, for Create Video: connect it, as the field there takes only whole numbers.",
                ),
            ],
        )

    @classmethod
    def execute(cls, dicetalk, audio, start, length) -> io.NodeOutput:
        if audio is None:
            raise InputError("audio is empty: the video that it comes from has no sound track. Wire another AUDIO.")
        require_finite(start=start, length=length)
        waveform, rate = require_audio(audio, "audio")
        first = round(start * rate)
        piece = waveform[:, :, first : first + max(1, round(length * rate)) if length > 0 else None]
        if piece.shape[-1] == 0:
            seconds = waveform.shape[-1] / rate
            raise InputError(f"start is {start:g} s, but the audio lasts {seconds:.2f} s: start earlier.")
        # The tokens; and while they are made the sound, mixed to mono, at its own rate and at Whisper's.
        each = dicetalk.audio_token_bytes + 4 * round((rate + SAMPLE_RATE) / FPS)
        require_memory(
            "audio",
            round(piece.shape[-1] / rate * FPS),
            each,
            comfy.model_management.get_free_memory(comfy.model_management.intermediate_device()),
            lambda seconds: f"set length to {seconds} s at most",
        )
        mono, heard, notes = of_waveform(piece[0], "audio")
        for note in (*notes, *quiet(float(mono.abs().max()), "audio")):
            logging.warning("DICE-Talk Audio Features: %s", note)
        speech = resample(mono, rate)
        progress = comfy.utils.ProgressBar(1)

        def on_chunk(done, total):
            comfy.model_management.throw_exception_if_processing_interrupted()
            progress.update_absolute(done, total)

        tokens = SpeechTokens(*dicetalk.audio_tokens(speech, on_chunk))
        seconds = len(tokens.tokens) / FPS
        missing = round(seconds * rate) - heard.shape[-1]  # less than a frame; below 0 by what resampling left
        spoken = {"waveform": torch.nn.functional.pad(heard, (0, max(missing, 0)))[None], "sample_rate": rate}
        return io.NodeOutput(tokens, len(tokens.tokens), seconds, spoken, FPS)
