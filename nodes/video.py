"""DICE-Talk Video."""

import copy
import functools
import logging
import math
import os
from contextlib import closing, contextmanager
from dataclasses import replace
from fractions import Fraction

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import Input, Types, io

from ..dicetalk.errors import InputError
from ..dicetalk.media.ahead import check as check_ahead
from ..dicetalk.media.ahead import checked_between_layers, read_ahead
from ..dicetalk.media.downmix import of_waveform
from ..dicetalk.memory import is_out_of_memory
from ..dicetalk.model.settings import LATENT_CHANNELS
from ..dicetalk.sampling.decoding import CONTEXT, LARGEST_CHUNK, REACH, decode_in_chunks, fitting_chunk, frame_bytes
from ..dicetalk.sampling.finite import FramesNotFinite, require_finite_frames
from ..dicetalk.script.subtitles import parse_srt
from .checks import require_audio
from .progress import TimeLeft, clip_of_list, say
from .types import CLIP, vae_input
from .vae import in_precision

InterpModel = io.Custom("INTERP_MODEL")
_TELL_EVERY = 8  # frames
_NOT_FINITE_REMEDY = (
    "start ComfyUI with --fp32-vae, or load the VAE's file again; the sampled latent is kept for the next run"
)
_REMEDY = "make smaller pictures, or start ComfyUI with --cpu-vae; the sampled latent is kept for the next run"


class LatentVideo(Input.Video):
    """A VIDEO that is decoded, a few frames at a time, whenever someone takes its frames.

    Args:
        latents: (N, 4, h, w), as VAE Decode takes them.
        vae: ComfyUI's VAE.
        fps: of the latents; twice that comes out with an `interp_model`.
        audio: AUDIO of one clip; what is longer than the pictures is cut.
        interp_model: ComfyUI's INTERP_MODEL, which adds a frame between every two; the last one is there twice, so
            that the video lasts as long: 2N in all.
        chunk_size, context: see `dicetalk.sampling.decoding`.
        subtitles: cues of `dicetalk.script.subtitles`, written into saved files.
        smooth_motion: add them by motion compensation, as the command line does, where there is no `interp_model`.
        clip: of a list: (its number from 1, how many there are).
    """

    def __init__(
        self,
        latents,
        vae,
        fps,
        audio=None,
        interp_model=None,
        chunk_size=LARGEST_CHUNK,
        context=CONTEXT,
        smooth_motion=False,
        subtitles=(),
        clip=None,
    ):
        self._clip = clip
        self._latents, self._vae, self._audio, self._interp_model = latents, vae, audio, interp_model
        self._smooth = smooth_motion and interp_model is None
        self._sampled_fps = Fraction(fps).limit_denominator(1001)
        self._fps = self._sampled_fps * (2 if interp_model is not None or self._smooth else 1)
        self._chunk_size, self._context = chunk_size, context if _is_temporal(vae) else 0
        self._fits = self._precise = None
        self._subtitles = tuple(subtitles)
        self._first, self._stop = 0, len(latents) * (2 if interp_model is not None or self._smooth else 1)

    def get_frame_count(self) -> int:
        return self._stop - self._first

    def get_frame_rate(self) -> Fraction:
        return self._fps

    def get_duration(self) -> float:
        return float(self.get_frame_count() / self._fps)

    def get_dimensions(self) -> tuple[int, int]:
        height, width = (side * self._vae.spacial_compression_decode() for side in self._latents.shape[-2:])
        return width, height

    def get_bit_depth(self) -> int:
        return 8

    def get_color_space(self) -> str:
        return "sRGB"

    def get_container_format(self) -> str:
        return "mov,mp4,m4a,3gp,3g2,mj2"  # what FFmpeg calls the MP4 that `get_stream_source` gives

    def as_trimmed(self, start_time=None, duration=None, strict_duration=False):
        """The part from `start_time` (from the end if negative) on, `duration` seconds long (0: to the end).

        Whole frames alone, of which those that begin within that time; the sound starts with the first of them. None
        if there are none, or with `strict_duration` not as many.
        """
        start_time, duration, whole = start_time or 0, duration or 0, self.get_duration()
        start = max(whole + start_time, 0) if start_time < 0 else start_time
        if duration < 0 or strict_duration and start + duration > whole + 1e-6:
            return None
        trimmed = copy.copy(self)
        trimmed._first = self._first + self._frames_before(start)
        if duration:
            trimmed._stop = min(self._stop, self._first + self._frames_before(start + duration))
        return trimmed if trimmed._first < trimmed._stop else None

    def _frames_before(self, seconds):
        return math.ceil(
            round(seconds * self._fps, 6)
        )  # seconds that are a frame's, but for rounding, are that frame's

    def get_components(self) -> Types.VideoComponents:
        """All frames at once, as tensors: the whole is decoded into memory."""
        images, filled = None, 0
        for frame in self._frames():
            if images is None:
                images = torch.empty((self.get_frame_count(), *frame.shape), dtype=frame.dtype)
            images[filled] = frame
            filled += 1
        audio = None
        if self._audio is not None:
            begin, end = self._samples()
            audio = {**self._audio, "waveform": self._audio["waveform"][:, :, begin:end]}
        return Types.VideoComponents(images=images, audio=audio, frame_rate=self._fps)

    def save_to(
        self,
        path,
        format=Types.VideoContainer.AUTO,
        codec=Types.VideoCodec.AUTO,
        metadata=None,
        bit_depth=None,
        crf=None,
        color_space=None,
    ):
        """Decode, encode and write a few frames at a time; `path` gets its name when it is complete."""
        from ..dicetalk.media.video import write_video

        encoding = _encoding(path, format, codec, bit_depth, crf, color_space)
        frames = (frame.float().numpy() for frame in self._frames())
        sound = None if self._audio is None else self._sound()
        rate = None if self._audio is None else self._audio["sample_rate"]
        write_video(path, frames, self._fps, sound, rate, metadata, encoding, self._cues())

    def _cues(self):
        """Those of the part that is shown, on its own time axis."""
        begin, end = float(self._first / self._fps), float(self._stop / self._fps)
        return [
            replace(cue, start=max(cue.start - begin, 0.0), end=min(cue.end, end) - begin)
            for cue in self._subtitles
            if cue.start < end and cue.end > begin
        ]

    def _samples(self):
        rate = self._audio["sample_rate"]
        return round(self._first / self._fps * rate), round(self._stop / self._fps * rate)

    def _sound(self):
        """One second at a time; channels are mixed where files have no such number."""
        from ..dicetalk.media.video import LAYOUTS

        waveform, second = self._audio["waveform"][0], int(self._audio["sample_rate"])
        begin, end = self._samples()
        for start in range(begin, end, second):
            block = waveform[:, start : min(start + second, end)].float().cpu()
            yield (block if len(block) in LAYOUTS else block.mean(0, keepdim=True)).numpy()

    def _frames(self):
        """(height, width, 3) in 0..1, one after the other, on the CPU.

        They are decoded in another thread, so that the caller can encode some while the next are decoded. Frames that
        are added come from that thread too: both use the GPU, and ComfyUI loads one model at a time.
        """
        total = self.get_frame_count()
        progress, left, done = comfy.utils.ProgressBar(total), TimeLeft(), 0
        twice = ", one of two added between the others" if self._fps > self._sampled_fps else ""
        self._say(f"decoding and writing {total} frames{twice}")
        with closing(read_ahead(self._pieces_on_cpu())) as pieces:
            for piece in pieces:
                for frame in piece:
                    comfy.model_management.throw_exception_if_processing_interrupted()
                    yield frame
                    progress.update(1)
                    done += 1
                    if done % _TELL_EVERY == 0 or done == total:
                        self._say(f"decoded {done} of {total} frames, {left.after(done / total)}")
                piece = frame = None  # not kept while the next ones come

    def _say(self, text):
        with clip_of_list(self._clip):
            say(text)

    def _pieces_on_cpu(self):
        for piece in self._pieces():
            yield piece.cpu()
            del piece

    def _pieces(self):
        """(n, height, width, 3): the frames that are wanted."""
        if self._interp_model is None and not self._smooth:
            yield from self._decoded(self._first, self._stop)
            return
        skip, left = self._first % 2, self.get_frame_count()
        doubled = self._smoothed if self._smooth else self._doubled
        for piece in doubled(self._decoded(self._first // 2, min(self._stop // 2 + 1, len(self._latents)))):
            piece = piece[skip : skip + left]
            skip, left = 0, left - len(piece)
            yield piece

    @property
    def _decoder(self):
        """The VAE in float16 where ComfyUI has it in bfloat16, which loses ten times as much."""
        if self._precise is None:
            self._precise = in_precision(self._vae, torch.float16) if _is_temporal(self._vae) else self._vae
        return self._precise

    def _decoded(self, start, stop):
        if self._fits is None:  # once, so that saving again gives the same frames
            self._fits = _frames_that_fit(self._decoder, self._latents, self._chunk_size + 2 * self._context)
        size, context = fitting_chunk(self._fits, self._chunk_size, self._context)
        if context < self._context:
            logging.warning("Memory is short: DICE-Talk Video decodes with a context of %d frames only.", context)
        return decode_in_chunks(
            self._decode,
            self._latents,
            size,
            context,
            start,
            stop,
            out_of_memory=lambda error: comfy.model_management.is_oom(error) or is_out_of_memory(error),
            release=comfy.model_management.soft_empty_cache,
            remedy=_REMEDY,
            fits=self._fits,
        )

    def _decode(self, latents):
        try:
            return self._decode_with(self._decoder, latents)
        except FramesNotFinite:
            if self._decoder is self._vae:
                raise
            logging.warning("The VAE overflows in float16: DICE-Talk Video decodes in ComfyUI's own precision.")
            self._precise = self._vae
            return self._decode_with(self._vae, latents)

    def _decode_with(self, vae, latents):
        with torch.inference_mode(), _cancellable(vae.first_stage_model), _blending_in_place(vae), _silent():
            if not _is_temporal(vae):
                frames = vae.decode(latents)
                require_finite_frames(frames, _NOT_FINITE_REMEDY)
                return frames
            # VAE.decode would split the frames again, by its estimate of memory, and decode each alone after that.
            with comfy.model_management.cuda_device_context(vae.device):
                _load(vae, latents, len(latents))
                _move_unlisted_weights(vae.first_stage_model, vae.device)
                frames = vae.first_stage_model.decode(latents.to(vae.device, vae.vae_dtype))
                require_finite_frames(frames, _NOT_FINITE_REMEDY)  # before infinity is clamped to a colour
                frames = frames.to(vae.output_device, vae.vae_output_dtype(), copy=True)
                return vae.process_output(frames).movedim(1, -1)

    def _smoothed(self, pieces):
        from ..dicetalk.media.frame_rate import double_frame_rate

        frames = (frame.float().cpu().numpy() for piece in pieces for frame in piece)
        for frame in double_frame_rate(frames):
            yield torch.from_numpy(frame.astype("float32") / 255)[None]

    def _doubled(self, pieces):
        from comfy_extras.nodes_frame_interpolation import FrameInterpolate

        model, last = self._interp_model, None
        for piece in pieces:
            joined = piece if last is None else torch.cat([last, piece])
            with torch.inference_mode(), _cancellable(model.model), _silent():
                _move_unlisted_weights(model.model, model.load_device)  # the node's own loading leaves them there
                doubled = FrameInterpolate.execute(model, joined, 2).result[0]
            yield doubled if last is None else doubled[1:]
            last = piece[-1:]
        yield last


def _is_temporal(vae):
    """Whether the VAE mixes the frames that it decodes together, as that of Stable Video Diffusion does."""
    from comfy.ldm.modules.temporal_ae import VideoDecoder

    return isinstance(getattr(vae.first_stage_model, "decoder", None), VideoDecoder)


def _load(vae, latents, frames):
    """Have the VAE loaded, with room for decoding that many frames; returns the bytes that one takes."""
    each = _bytes_of_frame(vae, latents)
    comfy.model_management.load_models_gpu(
        [vae.patcher], memory_required=each * frames, force_full_load=vae.disable_offload
    )
    return each


def _bytes_of_frame(vae, latents):
    """ComfyUI's estimate, which for a temporal decoder is twice of what it takes here."""
    if not _is_temporal(vae):
        return vae.memory_used_decode(latents.shape, vae.vae_dtype)
    height, width = (side * vae.spacial_compression_decode() for side in latents.shape[-2:])
    return frame_bytes(vae.first_stage_model.decoder.conv_out.in_channels, height, width, vae.vae_dtype.itemsize)


def _move_unlisted_weights(model, device):
    """Put the weights that ComfyUI leaves behind when it loads a model in part to where it computes.

    Those are the weights of modules that hold other modules with weights: ComfyUI 0.33.0 without dynamic VRAM leaves
    them out of its list (`ModelPatcher._load_list`). The last convolution of SVD's decoder is one, RIFE's `beta` is
    another.
    """
    for module in model.modules():
        if any(True for child in module.children() for _ in child.parameters()):
            module._apply(lambda weight: weight.to(device), recurse=False)


def _frames_that_fit(vae, latents, wanted):
    each = _load(vae, latents, min(wanted, len(latents)))
    return int(vae.patcher.get_free_memory(vae.device) / each)


def _cancellable(model):
    """Let Cancel take effect between a model's layers."""

    def check():
        check_ahead()
        comfy.model_management.throw_exception_if_processing_interrupted()

    return checked_between_layers(model, check)


@contextmanager
def _blending_in_place(vae):
    """Let a temporal decoder mix frames without the memory for two products, to the same numbers."""
    from comfy.ldm.modules.temporal_ae import VideoResBlock

    blocks = [module for module in vae.first_stage_model.modules() if isinstance(module, VideoResBlock)]
    for block in blocks:
        block.forward = functools.partial(_res_block, block)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _res_block(block, x, temb=None, skip_video=False, timesteps=None):
    from comfy.ldm.modules.diffusionmodules.model import ResnetBlock

    x = ResnetBlock.forward(block, x, temb)
    if skip_video:
        return x
    alone = x.unflatten(0, (-1, timesteps or len(x))).transpose(1, 2)
    together = block.time_stack(alone, temb)
    share = block.get_alpha(len(alone)).to(x.device)
    if share.dtype == x.dtype:
        blended = together.mul_(share).add_(alone.mul_(1 - share))
    else:
        blended = share * together + (1 - share) * alone
    return blended.transpose(1, 2).flatten(0, 1)


@contextmanager
def _silent():
    """Keep what runs for each chunk from restarting the progress bar."""
    hook = comfy.utils.PROGRESS_BAR_HOOK
    comfy.utils.set_progress_bar_global_hook(None)
    try:
        yield
    finally:
        comfy.utils.set_progress_bar_global_hook(hook)


def _encoding(path, container, codec, bit_depth, crf, color_space):
    from ..dicetalk.media.video import COLORS, ENCODERS, FORMATS, Encoding

    container, codec = Types.VideoContainer(container).value, Types.VideoCodec(codec).value
    if container == "auto":
        suffix = os.path.splitext(path)[1][1:].lower() if isinstance(path, (str, os.PathLike)) else ""
        container = suffix if suffix in FORMATS else "mp4"
    if codec == "auto":
        codec = "av1" if container == "webm" else "h264"
    color = color_space or "sRGB"
    for value, known in ((container, FORMATS), (codec, ENCODERS), (color, COLORS)):
        if value not in known:
            raise InputError(f"Video cannot be saved as {value}: choose one of {', '.join(known)}.")
    if container == "webm" and codec != "av1":
        raise InputError(f"WebM cannot hold {codec}: choose av1, or another format.")
    return Encoding(container, codec, crf, max(bit_depth or 8, 10 if color.startswith("HDR") else 8), color)


class DiceTalkVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DiceTalkVideo",
            display_name="DICE-Talk Video",
            category="DICE-Talk/video",
            description="The video of a sampled LATENT, with its sound, for Save Video: decoded and written a few "
            "frames at a time, so that a long clip takes no more memory than a short one.",
            search_aliases=["vae decode", "create video", "long video", "streaming", "talking head", "frame rate"],
            inputs=[
                io.Latent.Input("samples", tooltip="From DICE-Talk Sampler."),
                vae_input(),
                io.Float.Input(
                    "fps",
                    default=12.5,
                    min=1.0,
                    max=120.0,
                    step=0.5,
                    tooltip="Frames per second of samples: 12.5. With interp_model the video has twice as many.",
                ),
                io.Audio.Input(
                    "audio", optional=True, tooltip="From DICE-Talk Audio Features; cut to the video's length."
                ),
                InterpModel.Input(
                    "interp_model",
                    optional=True,
                    tooltip="From Load Frame Interpolation Model; doubles the frame rate.",
                ),
                io.Int.Input(
                    "chunk_size",
                    default=LARGEST_CHUNK,
                    min=1,
                    max=4096,
                    advanced=True,
                    tooltip="Frames to decode at once, at most; fewer when they do not fit into memory. The fewer they "
                    "are, the longer decoding takes.",
                ),
                io.Int.Input(
                    "context",
                    default=CONTEXT,
                    min=0,
                    max=REACH,
                    advanced=True,
                    tooltip="Extra frames decoded on either side of each chunk, so that its borders do not show.",
                ),
                io.Boolean.Input(
                    "smooth_motion",
                    default=True,
                    optional=True,
                    tooltip="Adds a motion-compensated frame between every two: 25 frames a second instead of the "
                    "model's own 12.5. With an interp_model, that adds them.",
                ),
                io.String.Input(
                    "subtitles",
                    optional=True,
                    force_input=True,
                    tooltip="From DICE-Talk Script, or any text in SRT format: a track of the saved file that players "
                    "can show.",
                ),
            ],
            outputs=[io.Video.Output(display_name="video", tooltip="For Save Video; decoded when it is saved.")],
        )

    @classmethod
    def execute(
        cls, samples, vae, fps, chunk_size, context, audio=None, interp_model=None, smooth_motion=False, subtitles=None
    ):
        latents = samples["samples"]
        if latents.ndim != 4 or not len(latents):
            raise InputError(
                f"samples is a latent of shape {tuple(latents.shape)}, not one of frames: wire DICE-Talk Sampler's."
            )
        if latents.shape[1] != LATENT_CHANNELS or getattr(vae, "latent_channels", None) != latents.shape[1]:
            raise InputError(
                f"samples has {latents.shape[1]} channels and vae is for {getattr(vae, 'latent_channels', 'other')}: "
                f"wire DICE-Talk Sampler's latent, of {LATENT_CHANNELS}, and the vae of Load DICE-Talk."
            )
        from ..dicetalk.media.video import require_subtitles

        if not math.isfinite(fps) or fps <= 0:
            raise InputError(f"fps is {fps}: give a positive number, 12.5 for DICE-Talk.")
        if audio is not None:
            waveform, rate = require_audio(audio, "audio")
            _, heard, notes = of_waveform(waveform[0], "audio")
            for note in notes:
                logging.warning("DICE-Talk Video: %s", note)
            audio = {**audio, "waveform": heard[None], "sample_rate": rate}
        cues = parse_srt(subtitles) if subtitles and subtitles.strip() else ()
        if cues:
            require_subtitles()
        clip = samples.get(CLIP)
        video = LatentVideo(latents, vae, fps, audio, interp_model, chunk_size, context, smooth_motion, cues, clip)
        return io.NodeOutput(video)
