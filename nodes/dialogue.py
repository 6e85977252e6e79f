"""DICE-Talk Dialogue."""

import copy
import logging

import comfy.model_management
import torch
from comfy_api.latest import io
from PIL import ImageDraw, ImageFont

from ..dicetalk.errors import InputError
from ..dicetalk.media.downmix import of_waveform
from ..dicetalk.media.paste import FEATHER, MAX_FEATHER, paste_back
from ..dicetalk.media.persons import prepare_persons
from ..dicetalk.media.tracks import by_channels, by_turns, equally_long, mixed, parse_turns
from ..dicetalk.memory import require_memory
from ..dicetalk.model.audio import SAMPLE_RATE, num_frames, resample
from ..dicetalk.model.settings import EMOTION_SCALE, REFERENCE_SCALE
from ..dicetalk.sampling.decoding import CONTEXT, LARGEST_CHUNK
from .checks import require_audio, require_finite
from .emotion.files import validated
from .emotion.mix import INPUT_NAMES
from .portrait import encoded, first_in_colour, to_pil
from .preview import shown
from .progress import say
from .sampling.sampler import PUBLISHED_WINDOWS, sample
from .types import DiceTalk, Emotion, SpeechTokens, clip_vision_input, vae_input
from .video import LatentVideo

AUDIO_NAMES = [name.replace("emotion", "audio") for name in INPUT_NAMES]
_MODEL_FPS = 12.5
_PREVIEW_SIDE = 512


class DialogueVideo(LatentVideo):
    """A VIDEO of several persons: each is decoded on its own, a few frames at a time, and pasted into the picture.

    Args:
        latents: (N, 4, h, w) of each person.
        crop_boxes: where each was cut from, x1, y1, x2, y2 in pixels.
        picture: (1, height, width, 3) in 0..1; an odd last row or column is left out, as video needs even sides.
        feather: as `dicetalk.media.paste.paste_back`.
        vae, audio, smooth_motion: as `LatentVideo`.
    """

    def __init__(self, latents, crop_boxes, picture, feather, vae, audio, smooth_motion):
        settings = {"audio": audio, "smooth_motion": smooth_motion}
        super().__init__(latents[0], vae, _MODEL_FPS, **settings)
        self._persons = [
            LatentVideo(each, vae, _MODEL_FPS, None, None, LARGEST_CHUNK, CONTEXT, smooth_motion) for each in latents
        ]
        self._crop_boxes, self._picture, self._feather = crop_boxes, picture.cpu().float(), feather

    def get_dimensions(self):
        height, width = self._picture.shape[1:3]
        return width // 2 * 2, height // 2 * 2

    def _pieces(self):
        width, height = self.get_dimensions()
        for frames in zip(*map(self._frames_of, self._persons), strict=True):
            whole = self._picture
            for frame, crop_box in zip(frames, self._crop_boxes, strict=True):
                whole = paste_back(frame[None], whole, crop_box, self._feather)
            yield whole[:, :height, :width]

    def _frames_of(self, person):
        """One person's frames of the part that is wanted, on the CPU."""
        part = copy.copy(person)
        part._first, part._stop = self._first, self._stop
        for piece in part._pieces():
            yield from piece.cpu().float()


class DiceTalkDialogue(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DiceTalkDialogue",
            display_name="DICE-Talk Dialogue",
            category="DICE-Talk/sampling",
            description="Lets two or more persons in one picture talk with each other: a face, a track of speech and "
            "an emotion each. Each is made in a crop of its own, and put back into the picture.",
            search_aliases=["two faces", "conversation", "multiple speakers", "interview", "podcast", "dialogue"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="From Load DICE-Talk; LoRA, compile and cache nodes may be in between."
                ),
                DiceTalk.Input("dicetalk", tooltip="From Load DICE-Talk."),
                clip_vision_input(),
                vae_input(),
                io.Image.Input("image", tooltip="One picture with all persons, their faces to the camera."),
                io.Autogrow.Input(
                    "emotions",
                    template=io.Autogrow.TemplateNames(
                        Emotion.Input("emotion", tooltip="How this person feels, also while they only listen."),
                        names=INPUT_NAMES,
                        min=2,
                    ),
                    tooltip="One for each person, from the left: their number says how many persons there are.",
                ),
                io.Autogrow.Input(
                    "audios",
                    template=io.Autogrow.TemplateNames(
                        io.Audio.Input("audio", tooltip="What is said."), names=AUDIO_NAMES, min=1
                    ),
                    tooltip="One for each person; or one for all, with a channel for each person or with turns.",
                ),
                io.String.Input(
                    "turns",
                    default="",
                    placeholder="0s 1; 2.5s 2; 4s -",
                    tooltip="With one audio for all: who speaks from when on, by number, - for nobody. Empty takes a "
                    "channel for each person.",
                ),
                io.String.Input(
                    "faces",
                    default="",
                    placeholder="1; 2",
                    tooltip="Which faces, one for each person: numbers from the left, left, right, or x1,y1,x2,y2 in "
                    "pixels, with semicolons between them. Empty takes all, from the left.",
                ),
                io.Int.Input(
                    "short_side",
                    default=512,
                    min=64,
                    max=2048,
                    step=64,
                    tooltip="Side of the square that each person is made in, in pixels; the model was trained at 512.",
                ),
                io.Float.Input(
                    "margin",
                    default=0.5,
                    min=0.0,
                    max=3.0,
                    step=0.05,
                    tooltip="How much is kept around each face, as a share of its size; less where that would reach "
                    "into the next face.",
                ),
                io.Float.Input(
                    "feather",
                    default=FEATHER,
                    min=0.0,
                    max=MAX_FEATHER,
                    step=0.01,
                    tooltip="Width of the soft edge, as a share of the crop's shorter side: 0 is a hard edge.",
                ),
                io.Float.Input(
                    "reference_scale",
                    default=REFERENCE_SCALE,
                    min=0.0,
                    max=20.0,
                    step=0.1,
                    tooltip="How closely the frames keep to the portrait.",
                ),
                io.Float.Input(
                    "emotion_scale",
                    default=EMOTION_SCALE,
                    min=0.0,
                    max=20.0,
                    step=0.1,
                    tooltip="Guidance: how far the frames go beyond what the model draws without speech and emotion.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Another seed gives another video.",
                ),
                io.Int.Input("steps", default=25, min=1, max=1000, tooltip="Sampling steps; 25 as published."),
                io.Boolean.Input(
                    "smooth_motion",
                    default=True,
                    tooltip="Adds a motion-compensated frame between every two: 25 frames a second instead of the "
                    "model's own 12.5.",
                ),
            ],
            outputs=[io.Video.Output(display_name="video", tooltip="For Save Video; decoded when it is saved.")],
        )

    @classmethod
    def validate_inputs(cls, turns, emotions=None, audios=None):
        return validated(lambda text: text.strip() and parse_turns(text, len(INPUT_NAMES)), turns)

    @classmethod
    def execute(
        cls,
        model,
        dicetalk,
        clip_vision,
        vae,
        image,
        emotions,
        audios,
        turns,
        faces,
        short_side,
        margin,
        feather,
        reference_scale,
        emotion_scale,
        seed,
        steps,
        smooth_motion,
    ) -> io.NodeOutput:
        require_finite(margin=margin, feather=feather)
        image = first_in_colour(image)
        tracks, audio = _tracks(list(audios.values()), turns, len(emotions))
        picture = to_pil(image)
        persons = prepare_persons(picture, len(emotions), faces, short_side, margin, "image")
        portraits = [encoded(each, image, vae, clip_vision) for each in persons]
        latents = []
        for number, (portrait, track, emotion) in enumerate(zip(portraits, tracks, emotions.values(), strict=True)):
            say(f"{portrait.prepared.notes[0]} Sampling {number + 1} of {len(portraits)} persons.")
            latents.append(
                sample(
                    seed=(seed + number) % 2**64,
                    steps=steps,
                    sampler_name="euler",
                    scheduler="karras",
                    model=model,
                    dicetalk=dicetalk,
                    portrait=portrait,
                    audio_features=SpeechTokens(*dicetalk.audio_tokens(torch.from_numpy(track), _cancellable)),
                    emotion=emotion,
                    reference_scale=reference_scale,
                    emotion_scale=emotion_scale,
                    **PUBLISHED_WINDOWS,
                )
            )
        crop_boxes = [each.crop_box for each in persons]
        video = DialogueVideo(latents, crop_boxes, image, feather, vae, audio, smooth_motion)
        return io.NodeOutput(video, ui=shown(_preview(picture, persons), cls))


def _cancellable(done, total):
    comfy.model_management.throw_exception_if_processing_interrupted()


def _tracks(audios, turns, persons):
    """(samples,) speech at 16 kHz of each person, all equally long; and the AUDIO of the video."""
    given = [require_audio(audio, name) for audio, name in zip(audios, AUDIO_NAMES)]
    seconds = max(waveform.shape[-1] / rate for waveform, rate in given)
    require_memory(
        "audio",
        num_frames(round(seconds * SAMPLE_RATE)),
        4 * persons * SAMPLE_RATE / _MODEL_FPS,
        comfy.model_management.get_free_memory(torch.device("cpu")),
        lambda fits: f"give {fits} s at most",
    )
    if len(given) > 1:
        if len(given) != persons:
            raise InputError(
                f"audios holds {len(given)} recordings and emotions {persons}: wire one for each person, or one for "
                "all."
            )
        if turns.strip():
            raise InputError("turns are for one recording of all persons, and several are wired: leave turns empty.")
        mono = [_mono(*each, name) for each, name in zip(given, AUDIO_NAMES)]
        speech = [resample(each, rate).numpy() for each, (_, rate) in zip(mono, given)]
        highest = max(rate for _, rate in given)
        heard = mixed([_at_rate(each, rate, highest) for each, (_, rate) in zip(mono, given)])
        return equally_long(speech), {"waveform": torch.from_numpy(heard)[None, None], "sample_rate": highest}
    waveform, rate = given[0]
    audio = {"waveform": waveform, "sample_rate": rate}
    if turns.strip():
        speech = resample(_mono(waveform, rate, "audio_a"), rate)
        return by_turns(speech, SAMPLE_RATE, parse_turns(turns, persons), persons), audio
    channels = by_channels(waveform[0].float().cpu(), persons, "audio_a")
    return [resample(torch.from_numpy(each), rate).numpy() for each in channels], audio


def _at_rate(mono, rate, wanted):
    import soxr

    return mono.cpu().numpy() if rate == wanted else soxr.resample(mono.cpu().numpy(), rate, wanted, quality="HQ")


def _mono(waveform, rate, name):
    mono, _, notes = of_waveform(waveform[0], name)
    for note in notes:
        logging.warning("DICE-Talk Dialogue: %s", note)
    return mono


def _preview(picture, persons):
    """The picture with each person's crop and number."""
    scale = min(1.0, _PREVIEW_SIDE / max(picture.size))
    small = picture.resize([max(1, round(scale * side)) for side in picture.size])
    draw, font = ImageDraw.Draw(small), ImageFont.load_default(24)
    for number, person in enumerate(persons, 1):
        left, top, right, bottom = (round(scale * edge) for edge in person.crop_box)
        draw.rectangle((left, top, right - 1, bottom - 1), outline="white", width=2)
        draw.text((left + 8, top + 4), str(number), "white", font, stroke_width=2, stroke_fill="black")
    return small
