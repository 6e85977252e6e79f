"""DICE-Talk Audio Features."""

import comfy.model_management
import comfy.utils
from comfy_api.latest import io

from ..dicetalk.emotion.options import FPS
from ..dicetalk.errors import InputError
from ..dicetalk.memory import require_memory
from ..dicetalk.model.audio import SAMPLE_RATE, check_rate, num_frames, resample
from .checks import require_finite
from .types import Audio, DiceTalk, SpeechTokens


class DiceTalkAudioFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DiceTalkAudioFeatures",
            display_name="DICE-Talk Audio Features",
            category="DICE-Talk",
            description="Turns speech into what the UNet hears: one set of tokens per video frame (12.5 a second).",
            search_aliases=["speech", "lip sync", "whisper", "talking head"],
            inputs=[
                DiceTalk.Input("dicetalk", tooltip="From Load DICE-Talk."),
                io.Audio.Input("audio", tooltip="Speech; any sampling rate, mixed to mono."),
                io.Float.Input(
                    "start",
                    default=0.0,
                    min=0.0,
                    max=86400.0,
                    step=0.01,
                    tooltip="Where the piece to speak starts, in seconds.",
                ),
                io.Float.Input(
                    "length",
                    default=0.0,
                    min=0.0,
                    max=86400.0,
                    step=0.01,
                    tooltip="How long the piece is, in seconds; 0 is to the end.",
                ),
            ],
            outputs=[
                Audio.Output(display_name="audio_features", tooltip="For DICE-Talk Sampler or Guider."),
                io.Int.Output(display_name="frames", tooltip="Number of video frames at 12.5 fps."),
                io.Float.Output(display_name="seconds", tooltip="Length of the video in seconds."),
                io.Audio.Output(display_name="audio", tooltip="The piece that is spoken, for Create Video."),
                io.Float.Output(
                    display_name="fps", tooltip="12.5, for Create Video, whose own field takes whole numbers only."
                ),
            ],
        )

    @classmethod
    def execute(cls, dicetalk, audio, start, length) -> io.NodeOutput:
        if audio is None:
            raise InputError("audio is empty: the video that it comes from has no sound track. Wire another AUDIO.")
        require_finite(start=start, length=length)
        waveform, rate = audio["waveform"], audio["sample_rate"]
        if len(waveform) != 1:
            raise InputError(f"audio holds a batch of {len(waveform)} clips, and one can be spoken: give one.")
        if waveform.shape[-1] == 0:
            raise InputError("audio holds no sound at all (0 samples): check the node it is from.")
        check_rate(rate, "audio")
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
        speech = resample(piece[0], rate)
        if num_frames(len(speech)) == 0:
            raise InputError(
                f"The audio from {start:g} s on lasts {len(speech) / SAMPLE_RATE:.3f} s, but one video frame takes "
                "0.080 s: use a longer piece."
            )
        progress = comfy.utils.ProgressBar(1)

        def on_chunk(done, total):
            comfy.model_management.throw_exception_if_processing_interrupted()
            progress.update_absolute(done, total)

        tokens = SpeechTokens(*dicetalk.audio_tokens(speech, on_chunk))
        seconds = len(tokens.tokens) / FPS
        spoken = {"waveform": piece[:, :, : round(seconds * rate)], "sample_rate": rate}
        return io.NodeOutput(tokens, len(tokens.tokens), seconds, spoken, FPS)
