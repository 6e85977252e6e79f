"""DICE-Talk as a diffusers pipeline: portrait, speech and emotion in, frames out. No ComfyUI needed."""

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Callable, Iterator

import numpy as np
import torch
from diffusers import DiffusionPipeline, EulerDiscreteScheduler
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from .checkpoints.finding import Checkpoint, resolve_checkpoint
from .checkpoints.loading import load_part
from .checkpoints.priors import load_priors, read_emotion
from .checkpoints.svd import TOWER, VAE, load_svd_part
from .checkpoints.whisper import load_whisper_encoder
from .emotion.parsing import resolve
from .emotion.timeline import EmotionTimeline
from .errors import InputError
from .media.ahead import checked_between_layers
from .media.moving import fitted
from .media.pixels import clip_pixels
from .media.portrait import PreparedPortrait
from .memory import free_memory, gathered, release, require_memory
from .model.audio import feature_windows, num_frames
from .model.compiling import compile_regions
from .model.emotion_tokens import bank_options, emotion_tokens
from .model.frames import use_frame_blocks
from .model.settings import EXPRESSION_BUCKET, LATENT_CHANNELS, LATENT_SCALE, MOTION_BUCKET, SCHEDULER_CONFIG
from .sampling.conditions import Conditions
from .sampling.decoding import CHUNK, CONTEXT, decode_in_chunks, fitting_chunk, frame_bytes
from .sampling.finite import require_finite_frames
from .sampling.guidance import BRANCHES
from .sampling.loop import LATENT_COPIES, REUSE_COPIES, SOLVER_COPIES, sample
from .sampling.meter import Meter
from .sampling.processes import decoded_by_all, least_of_all, process
from .sampling.schedules import make_scheduler, sigmas_of
from .sampling.speed import NOTHING, Savings
from .sampling.student import own_settings
from .sampling.windows import WINDOW

_TOKEN_BATCH = 64
_PIXEL_BYTES = 15  # as float32, and as uint8 beside it
_OUTPUT_TYPES = ("pil", "np", "pt", "latent")


@dataclass
class DiceTalkPipelineOutput(BaseOutput):
    """`frames`: N PIL images; (N, H, W, 3) float32 array in 0..1; (N, 3, H, W) float32 tensor in 0..1; or the latents
    (N, 4, H/8, W/8), scaled by 0.18215, by `output_type`. They play at 12.5 frames a second."""

    frames: Any


class DiceTalkPipeline(DiffusionPipeline):
    """Emotional talking portraits (arXiv 2504.18087).

    Args:
        unet: `DiceTalkUNet`.
        pose_guider: `PoseGuider`.
        audio_projection: `AudioProjection`.
        emotion_model: `EmotionModel`.
        audio_encoder: transformers' `WhisperEncoder` of whisper-tiny.
        image_encoder: transformers' `CLIPVisionModelWithProjection` of Stable Video Diffusion.
        vae: diffusers' `AutoencoderKLTemporalDecoder` of Stable Video Diffusion.
        scheduler: a diffusers scheduler that calls the model once a step.
    """

    checkpoint: Checkpoint | None = None  # whose presets `read_emotion` knows
    _quiet = False  # whether the encoding of a video shows no bar
    model_cpu_offload_seq = "audio_encoder->audio_projection->emotion_model->image_encoder->pose_guider->unet->vae"

    def __init__(
        self,
        unet,
        pose_guider,
        audio_projection,
        emotion_model,
        audio_encoder,
        image_encoder,
        vae,
        scheduler,
    ):
        super().__init__()
        self.register_modules(
            unet=unet,
            pose_guider=pose_guider,
            audio_projection=audio_projection,
            emotion_model=emotion_model,
            audio_encoder=audio_encoder,
            image_encoder=image_encoder,
            vae=use_frame_blocks(vae),
            scheduler=scheduler,
        )

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint | str | None = None, torch_dtype=torch.float32):
        """Load a published checkpoint folder.

        Args:
            checkpoint: a `Checkpoint`, a folder, a checkpoint's name, or None for the first one found.
            torch_dtype: precision of the weights of UNet, pose guider, VAE and image encoder. Whisper, the audio
                projection and the emotion model are float32, and their tokens alone are cast, as in the published code.
                A VAE in bfloat16 would lose ten times as much as in float16, so it gets float16 then.

        Raises:
            InputError: there is none, a part is missing, or a file is not what it should be.
        """
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = resolve_checkpoint(checkpoint)
        files = {part: checkpoint.file(part) for part in ("unet", "pose_guider", "audio_linear", "emo_model")}
        svd = checkpoint.folder("svd")
        whisper = checkpoint.folder("whisper")
        pipeline = cls(
            unet=load_part("unet", files["unet"], torch_dtype),
            pose_guider=load_part("pose_guider", files["pose_guider"], torch_dtype),
            audio_projection=load_part("audio_linear", files["audio_linear"], torch.float32),
            emotion_model=load_part("emo_model", files["emo_model"], torch.float32),
            audio_encoder=load_whisper_encoder(whisper, torch.float32),
            image_encoder=load_svd_part(svd, TOWER, torch_dtype),
            vae=load_svd_part(svd, VAE, torch.float16 if torch_dtype == torch.bfloat16 else torch_dtype),
            scheduler=EulerDiscreteScheduler.from_config(SCHEDULER_CONFIG),
        )
        pipeline.checkpoint = checkpoint
        return pipeline

    def read_emotion(self, text: str):
        """The emotion that a text describes, with the presets of the pipeline's checkpoint.

        Args:
            text: such as "happy:1.3", "(sad 0.7 + fear 0.3)" or "0s neutral; 1.5s happy", or a saved emotion's file.

        Returns:
            An `Emotion`, a mix, or an `EmotionTimeline`.

        Raises:
            InputError: the text cannot be read, names an unknown emotion, or the pipeline is of no checkpoint.
        """
        if self.checkpoint is None:
            raise InputError(
                "The pipeline was not made by from_checkpoint, so that it has no presets: give an Emotion, not text."
            )
        priors = load_priors(self.checkpoint.folder("emotions"))
        return resolve(read_emotion(text, priors), priors, text)

    @torch.no_grad()
    def __call__(
        self,
        portrait: PreparedPortrait,
        audio: np.ndarray | Tensor,
        emotion,
        num_inference_steps: int | None = None,
        reference_scale: float | None = None,
        emotion_scale: float | None = None,
        guidance_interval: tuple[float, float] | None = None,
        motion_bucket_id: float = MOTION_BUCKET,
        expression_bucket_id: float = EXPRESSION_BUCKET,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
        decode_chunk_size: int | None = None,
        output_type: str = "pil",
        callback_on_step_end: Callable[[Any, int, Tensor, dict], dict] | None = None,
        callback_on_step_end_tensor_inputs: tuple[str, ...] = ("latents",),
        return_dict: bool = True,
        start: tuple[int, Tensor] | tuple[int, Tensor, dict[str, Tensor]] | None = None,
        smaller_windows: bool = False,
        speech_strength: float = 1.0,
        emotion_strength: float = 1.0,
        denoise: float = 1.0,
        sampler: str | None = None,
        schedule: str | None = None,
        guidance_reuse: int = 1,
        deep_cache: int = 1,
        clamp_windows: bool = False,
        meter: Meter | None = None,
    ) -> DiceTalkPipelineOutput | tuple:
        """Make a talking portrait.

        A student of `python -m dicetalk distill` is sampled by its own steps, sampler and scales where none are given.

        What makes it faster and changes the result is off by default; `dicetalk.sampling.speed.SPEEDS` has choices of
        it that go together.

        Args:
            portrait: as `dicetalk.media.portrait.prepare_portrait` makes it; or of a video, as
                `dicetalk.media.moving.prepare_video` does, for another emotion or another voice.
            audio: (samples,) mono speech at 16 kHz; one frame per 80 ms.
            emotion: an `Emotion`, a mix, an `EmotionTimeline`, or text as `read_emotion` takes it.
            num_inference_steps: sampling steps; 25 as published when None.
            reference_scale: how closely the frames keep to the portrait; 3 as published when None.
            emotion_scale: guidance: how far the frames go from what the model draws without speech and emotion to what
                it draws with them; 6 as published when None. Both act together, and the model itself is unchanged.
            guidance_interval: lowest and highest sigma (0.002 to 700) that are guided; outside, the conditional
                branch alone is computed. None guides everywhere, as published.
            motion_bucket_id, expression_bucket_id: amount of motion of head and face, 8 and 16 as published.
            generator: source of the noise; one on the CPU gives the same noise on every device.
            noise: (N + 25, 4, H/8, W/8) standard normal, instead of a generator.
            decode_chunk_size: frames that are decoded at once, besides their context; None for as many as fit in
                free memory, see `decode`.
            output_type: "pil", "np", "pt" or "latent".
            callback_on_step_end: called with the pipeline, the step, its timestep and {"latents": (N + 25, 4, H/8,
                W/8)} after each step; may return {"latents": …} to continue with.
            callback_on_step_end_tensor_inputs: what it gets: "latents", and "carried", a dict of what else the next
                steps take up.
            start: resume an interrupted run: the number of steps done, and the latents, and "carried" if there is
                something in it, that `callback_on_step_end` got after them. Noise is not needed then.
            smaller_windows: when memory runs out although the three branches are computed one after the other, continue
                with windows of fewer frames, which changes the result, instead of an error.
            speech_strength, emotion_strength: 0 to 2: how much the speech and the emotion adapters add inside the
                model, each on its own; 1 as published, 0 leaves the adapter out.
            denoise: how much noise the start gets, as in ComfyUI's KSampler: 1 for none but noise, as published; 0.4
                to 0.7 to keep the head and the place of a video.
            sampler: "euler", as published; "dpmpp_2m", which needs fewer steps; or "lcm", which a student needs, and
                whose noise comes from the generator's seed. None for the pipeline's scheduler.
            schedule: of the noise levels, "karras", as published, or "align_your_steps"; None for the scheduler's own.
            guidance_reuse: compute guidance at every so many steps and add it again at those between, see
                `dicetalk.sampling.reuse.GuidanceReuse`; 1 at every step.
            deep_cache: compute the inner levels of the UNet at every so many steps, see
                `dicetalk.sampling.reuse.DeepCache`; 1 at every step.
            clamp_windows: end the windows where the clip does, without 25 frames more behind it: N frames then wherever
                it says N + 25 here, see `dicetalk.sampling.windows.clamped_windows`.
            meter: `dicetalk.sampling.meter.Meter.of` the checkpoint: says in the progress bar what emotion the network
                itself reads, and keeps what it reads in the finished clip in `meter.shares`.

        Raises:
            InputError: an argument cannot be used; the message names it. Or memory ran out, or is known to be too small
                for so long a clip, or values came out that are not finite.
        """
        if output_type not in _OUTPUT_TYPES:
            raise InputError(f"output_type is {output_type!r}: use one of {', '.join(_OUTPUT_TYPES)}.")
        scales = {"reference_scale": reference_scale, "emotion_scale": emotion_scale}
        own = own_settings(self.student, {"steps": num_inference_steps, "sampler": sampler, **scales})
        num_inference_steps, reference_scale = own["steps"], own["reference_scale"]
        emotion_scale = own["emotion_scale"]
        if self.student is not None:
            sampler = own["sampler"]
        if num_inference_steps < 1:
            raise InputError(f"num_inference_steps is {num_inference_steps}: it has to be 1 or more.")
        if not 0 < denoise <= 1:
            raise InputError(f"denoise is {denoise}: give more than 0 and at most 1.")
        _check_chunk(decode_chunk_size)
        unknown = set(callback_on_step_end_tensor_inputs) - {"latents", "carried"}
        if unknown:
            names = ", ".join(sorted(unknown))
            raise InputError(f"callback_on_step_end_tensor_inputs names {names}: only latents and carried are there.")
        savings = Savings(guidance_reuse, deep_cache, clamp_windows)
        scheduler = self.scheduler if sampler is None else make_scheduler(sampler)
        sigmas = None if schedule is None else sigmas_of(schedule, int(num_inference_steps / denoise))
        if isinstance(emotion, str):
            emotion = self.read_emotion(emotion)
        self._require_memory(portrait, audio, emotion, output_type, savings, scheduler)

        conditions = self.encode(portrait, audio, emotion, motion_bucket_id, expression_bucket_id)
        conditions = replace(conditions, speech_strength=speech_strength, emotion_strength=emotion_strength)
        if start is None:
            noise = self.prepare_noise(conditions, generator, noise)
        else:
            _check_start(start, num_inference_steps, _latent_shape(conditions, savings))

        def on_step(step, timestep, latents, carried):
            if callback_on_step_end is None:
                return latents
            inputs = {"latents": latents, "carried": carried}
            inputs = {name: inputs[name] for name in callback_on_step_end_tensor_inputs}
            return (callback_on_step_end(self, step, timestep, inputs) or {}).get("latents", latents)

        with self.progress_bar(total=1) as bar:

            def on_window(done, total):
                bar.total = total
                if meter is not None:
                    bar.set_postfix_str(meter.text(conditions.num_frames), refresh=False)
                bar.update(done - bar.n)

            latents = sample(
                self.unet,
                conditions,
                noise,
                scheduler,
                num_inference_steps,
                reference_scale,
                emotion_scale,
                guidance_interval=guidance_interval,
                on_step=on_step,
                on_window=on_window,
                device=self._execution_device,
                start=start,
                smaller_windows=smaller_windows,
                denoise=denoise,
                savings=savings,
                sigmas=sigmas,
                meter=meter,
                seed=(generator or torch.default_generator).initial_seed(),
            )
        frames = latents
        if output_type != "latent":
            frames = gathered(self.decode(latents, decode_chunk_size), len(latents))
        if output_type in ("np", "pil"):
            frames = frames.permute(0, 2, 3, 1).numpy()
        if output_type == "pil":
            frames = [Image.fromarray((frame * 255).round().astype(np.uint8)) for frame in frames]
        self.maybe_free_model_hooks()
        return DiceTalkPipelineOutput(frames=frames) if return_dict else (frames,)

    def compile_regions(self):
        """Let `torch.compile` compile the blocks of the UNet when they are first called; returns the pipeline.

        Clips of any length share what is compiled, see `dicetalk.model.compiling`. InputError where it cannot.
        """
        compile_regions(self.unet, WINDOW)
        return self

    @property
    def student(self):
        """How the pipeline's checkpoint is sampled, if it is a student of `distill`; None for others."""
        return self.checkpoint and self.checkpoint.student

    @torch.no_grad()
    def encode(
        self, portrait, audio, emotion, motion_bucket_id=MOTION_BUCKET, expression_bucket_id=EXPRESSION_BUCKET
    ) -> Conditions:
        """All that the UNet is conditioned on, from the three inputs."""
        device, dtype = self._execution_device, self.unet.dtype
        projection, emotion_model = self.audio_projection, self.emotion_model
        audio = torch.as_tensor(audio)
        if portrait.frames is None:
            image_latent = self._encode_latent(portrait.image, device)
        else:
            image_latent = self._encode_frames(fitted(portrait.frames, num_frames(audio.numel())), device)
        windows = feature_windows(self.audio_encoder, audio, device=device)
        batches = (batch for piece in windows for batch in piece.split(_TOKEN_BATCH))
        audio_tokens = gathered(
            (projection(batch.to(device, projection.dtype)).to("cpu", dtype) for batch in batches),
            num_frames(audio.numel()),
        )
        face_mask = torch.from_numpy(portrait.face_mask)[None, None].to(device, dtype)
        return Conditions(
            image_latent=image_latent,
            clip_embeds=self._encode_clip(portrait.image, device),
            audio_tokens=audio_tokens,
            uncond_audio_tokens=projection.unconditional(device).to("cpu", dtype),
            emotion_tokens=self._encode_emotion(emotion, len(audio_tokens), device, dtype),
            uncond_emotion_tokens=emotion_model.unconditional(bank_options(emotion), device).to("cpu", dtype),
            face_mask=face_mask,
            pose_features=self._encode_pose(face_mask),
            motion_bucket_id=motion_bucket_id,
            expression_bucket_id=expression_bucket_id,
        )

    def prepare_noise(self, conditions: Conditions, generator=None, noise: Tensor | None = None) -> Tensor:
        """(N + 25, 4, h, w) standard normal, float32: drawn, or the one given after its shape is checked."""
        shape = _latent_shape(conditions)
        if noise is None:
            device = "cpu" if generator is None else generator.device
            return torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
        noise = noise[0] if noise.ndim == 5 and len(noise) == 1 else noise
        if tuple(noise.shape) != shape:
            raise InputError(f"noise has shape {tuple(noise.shape)}: {shape} is needed, 25 frames more than are kept.")
        return noise

    def decode(self, latents: Tensor, chunk_size: int | None = None, context: int = CONTEXT) -> Iterator[Tensor]:
        """Decode latents piece by piece; the frames are those of decoding at once within 1/255 on average.

        Args:
            latents: (N, 4, h, w), scaled by 0.18215.
            chunk_size: frames to decode at once, at least 1; fewer when memory runs out. None for as many as fit in
                the device's free memory, 64 at most: the fewer they are, the more often a frame is decoded.
            context: frames to either side that are decoded with each chunk, which hides its borders; 0 for none, as
                in the published code; fewer when memory runs out even for chunks of one frame.

        Yields:
            (up to chunk_size, 3, 8h, 8w) float32 in 0..1, on the CPU.

        Raises:
            InputError: memory is too small for one frame, or the VAE gave values that are not finite.
        """
        chunks = self._chunks(chunk_size, context, None if chunk_size else self._frames_that_fit(latents))
        return self._decoded(latents, *chunks)

    def decode_by_all(self, latents: Tensor, chunk_size: int | None = None, context: int = CONTEXT) -> Iterator[Tensor]:
        """As `decode`, by all processes that share out a clip: all call it, and the first one gets the frames.

        The chunks are those of one process, so that more processes than chunks do not help.

        Args:
            latents, chunk_size, context: see `decode`; equal in all processes.

        Raises:
            InputError: as `decode`, here or in another process.
        """
        processes = process()[1]
        if processes == 1:
            return self.decode(latents, chunk_size, context)
        fits = None if chunk_size else self._frames_that_fit(latents)
        if fits is not None and self._execution_device.type == "cpu":
            fits //= processes  # which share its memory
        size, context, fits = self._chunks(chunk_size, context, least_of_all(fits))
        starts = range(0, len(latents), size)

        def decode(start, stop):
            return torch.cat(list(self._decoded(latents, size, context, fits, start, stop)))

        chunks = [(start, min(start + size, len(latents))) for start in starts]
        return decoded_by_all(chunks, decode, (3, *(8 * side for side in latents.shape[-2:])))

    def _chunks(self, chunk_size, context, fits):
        """Size and context of the chunks, and the frames that memory is known to be enough for."""
        _check_chunk(chunk_size)
        if chunk_size is not None:
            return chunk_size, context, None
        return (CHUNK, context, None) if fits is None else (*fitting_chunk(fits, context=context), fits)

    def _decoded(self, latents, size, context, fits, start=0, stop=None):
        """The frames start … stop - 1; see `decode_in_chunks`."""

        @torch.no_grad()
        def decode(window):
            window = window.to(self._execution_device, self.vae.dtype) / LATENT_SCALE
            with checked_between_layers(self.vae.decoder):
                frames = self.vae.decode(window, num_frames=len(window)).sample
            require_finite_frames(frames, "choose another precision (--dtype), or fetch the checkpoint again")
            return (frames.float() / 2 + 0.5).clamp(0, 1).cpu()

        return decode_in_chunks(
            decode,
            latents,
            size,
            context,
            start,
            stop,
            release=lambda: release(self._execution_device),
            remedy="decode smaller pictures, or on the CPU",
            fits=fits,
        )

    def _frames_that_fit(self, latents) -> int | None:
        """How many frames can be decoded at once by the memory that is free, None where that is not known."""
        free = free_memory(self._execution_device)
        if free is None:
            return None
        height, width = (8 * side for side in latents.shape[-2:])
        each = frame_bytes(self.vae.config.block_out_channels[0], height, width, self.vae.dtype.itemsize)
        return int(free / each)

    def _require_memory(self, portrait, audio, emotion, output_type, savings, scheduler):
        """InputError unless there is memory for what stays of each frame, before any work is done."""
        pixels = portrait.image.width * portrait.image.height
        # Beside a GPU the noise and the result, as the code has it; not measured.
        on_cpu = self._execution_device.type == "cpu"
        copies = 2
        if on_cpu:
            copies = LATENT_COPIES + REUSE_COPIES * (savings.guidance_reuse > 1)
            copies += SOLVER_COPIES * hasattr(scheduler, "remembered")
        each = self.audio_projection.tokens * self.audio_projection.dim * self.unet.dtype.itemsize
        each *= 2 if isinstance(emotion, EmotionTimeline) else 1  # its tokens are as many as those of the sound
        each += copies * 4 * LATENT_CHANNELS * pixels // 64
        if on_cpu and savings.deep_cache > 1:
            each += len(BRANCHES) * self.unet.deep_channels * self.unet.dtype.itemsize * pixels // 64
        if output_type != "latent":
            each += _PIXEL_BYTES * pixels
        require_memory(
            "audio",
            num_frames(torch.as_tensor(audio).numel()),
            each,
            free_memory("cpu"),
            lambda seconds: f"give {seconds} s of it at most (--length {seconds})",
        )

    def _encode_latent(self, image, device):
        """The portrait's latent, computed in float32 as in the published code."""
        with self._precise_encoder():
            return self._latent(image, device)

    def _encode_frames(self, frames, device):
        """The latents of a video's frames, one after the other."""
        with self._precise_encoder():
            bar = tqdm(frames, desc="Encoding the video", unit="frame", disable=True if self._quiet else None)
            return torch.cat([self._latent(Image.fromarray(frame), device) for frame in bar])

    def _latent(self, image, device):
        pixels = _to_tensor(image).to(device, torch.float32) * 2 - 1
        return self.vae.encode(pixels).latent_dist.mode().float()

    @contextmanager
    def _precise_encoder(self):
        """The VAE's encoder in float32."""
        dtype = self.vae.dtype
        encoder = torch.nn.ModuleList([self.vae.encoder, self.vae.quant_conv])
        try:
            encoder.to(torch.float32)
            yield
        finally:
            encoder.to(dtype)

    def _encode_emotion(self, emotion, frames, device, dtype):
        return emotion_tokens(self.emotion_model, emotion, frames, device=device).to(dtype)

    def _encode_pose(self, face_mask):
        return self.pose_guider(face_mask)

    def _encode_clip(self, image, device):
        pixels = clip_pixels(image, self.image_encoder.config.image_size)
        return self.image_encoder(pixels.to(device, self.unet.dtype)).image_embeds


def _latent_shape(conditions, savings=NOTHING):
    return conditions.num_frames + savings.extra_frames(WINDOW), *conditions.image_latent.shape[1:]


def _check_start(start, steps, shape):
    done, latents, *_ = start
    if not 1 <= done <= steps or tuple(latents.shape) != shape:
        raise InputError(
            f"start is {done} steps with latents of shape {tuple(latents.shape)}: 1 to {steps} steps, and {shape}, fit."
        )


def _check_chunk(frames):
    if frames is not None and frames < 1:
        raise InputError(f"decode_chunk_size is {frames}: it has to be 1 or more.")


def _to_tensor(image):
    """PIL RGB → (1, 3, H, W) float32 in 0..1."""
    return torch.from_numpy(np.array(image, dtype=np.float32) / 255).permute(2, 0, 1)[None]
