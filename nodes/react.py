"""DICE-Talk Re-act."""

import itertools
import logging
import math
from dataclasses import replace
from io import BytesIO

import comfy.model_management
import comfy.utils
import numpy as np
import torch
from comfy_api.latest import InputImpl, io

from ..dicetalk.emotion.options import FPS
from ..dicetalk.errors import InputError
from ..dicetalk.media.moving import prepare_video, steady
from ..dicetalk.memory import require_memory
from .checks import in_unit_range, require_finite, require_picture
from .portrait import AUTOMATIC, FACES, chosen_face, encode_latent, encoded, mask_for, preview, to_image, to_pil
from .preview import shown
from .types import Portrait, clip_vision_input, vae_input
from .vae import in_precision


class DiceTalkReact(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DiceTalkReact",
            display_name="DICE-Talk Re-act",
            category="DICE-Talk/input",
            description="Takes a video in the place of a portrait, to give it another emotion or another voice: every "
            "frame is encoded, and sampling starts from them. Set denoise of DICE-Talk Sampler to 0.4 to 0.7.",
            search_aliases=["video to video", "dubbing", "change emotion", "lip sync", "re-act", "reenact"],
            inputs=[
                io.Video.Input("video", tooltip="A video of one person, whose face is looked for in the first frame."),
                clip_vision_input(),
                vae_input(),
                io.Int.Input(
                    "short_side",
                    default=512,
                    min=64,
                    max=2048,
                    step=64,
                    tooltip="The short side of the video in pixels; both sides become multiples of 64. The model was "
                    "trained at 512.",
                ),
                io.Boolean.Input(
                    "crop",
                    default=False,
                    tooltip="Cut a square around the face; otherwise the whole picture is used.",
                ),
                io.Float.Input(
                    "margin",
                    default=0.5,
                    min=0.0,
                    max=3.0,
                    step=0.05,
                    tooltip="With crop: how much is kept on every side of the face, as a share of the face's size.",
                ),
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
                io.BoundingBox.Input(
                    "bboxes",
                    optional=True,
                    force_input=True,
                    socketless=False,
                    tooltip="Where the face is, for instance from Detect Face Landmarks (MediaPipe). The largest box "
                    "of the first picture is used. Without it and without a mask the face is searched for.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the face may move, of the picture's size: its rectangle is taken. Overrides "
                    "bboxes. One that covers all but the face is inverted.",
                ),
                io.Combo.Input(
                    "face",
                    optional=True,
                    options=list(FACES),
                    default=AUTOMATIC,
                    tooltip="Which of the faces that are found, from the left of the picture; automatic is the "
                    "largest one, and an error where two are equally large. Not used with bboxes or mask.",
                ),
            ],
            outputs=[
                Portrait.Output(display_name="portrait", tooltip="For DICE-Talk Sampler or Guider."),
                io.Audio.Output(
                    display_name="audio",
                    tooltip="The video's own sound, for DICE-Talk Audio Features; for another voice, wire that there.",
                ),
                io.Image.Output(display_name="frames", tooltip="The frames as the model sees them, 12.5 a second."),
            ],
        )

    @classmethod
    def execute(
        cls,
        video,
        clip_vision,
        vae,
        short_side,
        crop,
        margin,
        start,
        length,
        bboxes=None,
        mask=None,
        face=AUTOMATIC,
    ) -> io.NodeOutput:
        require_finite(start=start, length=length)
        opened, audio = _opened(video, start, length or math.inf)
        first = next(iter(opened()), (0, None))[1]
        if first is None:
            raise InputError("video holds no pictures in that part: set start and length to a part that has some.")
        whole = to_image(first)
        prepared = prepare_video(
            opened,
            None,
            chosen_face(mask, bboxes, face),
            short_side,
            crop,
            margin,
            mask=None if mask is None else mask_for(mask, whole),
        )
        for text in prepared.notes:
            logging.info("DICE-Talk Re-act: %s", text)
        for text in prepared.warnings:
            logging.warning("DICE-Talk Re-act: %s", text)
        frames = prepared.frames
        assert frames is not None  # a video's
        portrait = encoded(replace(prepared, frames=None), whole, vae, clip_vision)
        latents = _encoded(frames, vae, portrait.latent)

        def pictures(fps, count):
            return _whole_pictures(opened, fps, count, whole.shape[1:])

        portrait = replace(portrait, latent=latents, pictures=pictures)
        if audio is not None:
            end = round(len(frames) / FPS * audio["sample_rate"])
            audio = {**audio, "waveform": audio["waveform"][:, :, :end]}
        shown_frames = torch.from_numpy(frames).float() / 255
        return io.NodeOutput(portrait, audio, shown_frames, ui=shown(preview(to_pil(whole), prepared), cls))


def _encoded(frames, vae, first):
    """(N, 4, h, w) latents of (N, height, width, 3) uint8 frames, the first of which is known."""
    vae, progress = in_precision(vae, torch.float32), comfy.utils.ProgressBar(len(frames))
    latents = first.new_empty(len(frames), *first.shape[1:])
    for number, frame in enumerate(frames):
        comfy.model_management.throw_exception_if_processing_interrupted()
        latents[number] = encode_latent(vae, to_image(frame))[0] if number else first[0]
        progress.update(1)
    return latents


def _whole_pictures(opened, fps, count, shape):
    """Up to `count` of the video's pictures, (n, height, width, 3) in 0..1."""
    require_memory(
        "The video in its whole size",
        count,
        4 * math.prod(shape),
        comfy.model_management.get_free_memory(torch.device("cpu")),
        lambda seconds: f"set length of DICE-Talk Re-act to {seconds} s at most",
    )
    pictures = torch.empty(count, *shape)
    filled = 0
    for filled, picture in enumerate(itertools.islice(steady(opened(), fps), count), 1):
        pictures[filled - 1] = torch.from_numpy(picture)
    return pictures[:filled].div_(255)


def _opened(video, start, length):
    """What opens the video's (seconds, (height, width, 3) uint8) pictures, and its sound as an AUDIO, or None."""
    if not isinstance(video, InputImpl.VideoFromFile):
        return _of_tensors(video.get_components(), start, length)
    from ..dicetalk.reading.streams import look_into, stream_frames

    source = video.get_stream_source()
    trimmed, whole = video.get_active_trim_window()
    start, length = trimmed + start, min(length, (whole or math.inf) - start)

    def fresh():
        return source if isinstance(source, str) else BytesIO(source.getvalue())  # with a position of its own

    rate, _, has_sound = look_into(fresh())
    if rate is None:
        raise InputError("video holds sound and no pictures: wire a video of a person.")
    return lambda: stream_frames(fresh(), start=start, length=length), _sound(fresh(), start, length, has_sound)


def _sound(source, start, length, has_sound):
    if not has_sound:
        return None
    from ..dicetalk.media.audio import read_sound

    if not isinstance(source, str):
        audio = InputImpl.VideoFromFile(source).get_components().audio
        return None if audio is None else _cut(audio, start, length)
    rate, blocks = read_sound(source, start, None if math.isinf(length) else length)
    waveform = torch.from_numpy(np.concatenate(list(blocks), axis=1))
    return {"waveform": waveform[None], "sample_rate": rate}


def _cut(audio, start, length):
    rate = audio["sample_rate"]
    end = None if math.isinf(length) else round((start + length) * rate)
    return {**audio, "waveform": audio["waveform"][:, :, round(start * rate) : end]}


def _of_tensors(parts, start, length):
    require_picture(parts.images, "video")
    images = in_unit_range(parts.images, "video")
    rate = float(parts.frame_rate)

    def opened():
        for number, image in enumerate(images):
            seconds = number / rate - start
            if -1e-6 <= seconds < length:
                colours = image[..., :3].cpu().float().clamp(0, 1).expand(-1, -1, 3)
                yield max(seconds, 0.0), (colours * 255).round().to(torch.uint8).numpy()

    return opened, None if parts.audio is None else _cut(parts.audio, start, length)
