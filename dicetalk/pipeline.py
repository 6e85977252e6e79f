"""DICE-Talk as a diffusers pipeline: portrait, speech and emotion in, frames out. No ComfyUI needed."""

from dataclasses import dataclass
from typing import Any, Callable, Iterator

import numpy as np
import torch
from diffusers import AutoencoderKLTemporalDecoder, DiffusionPipeline, EulerDiscreteScheduler
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from .audio import audio_features, load_whisper_encoder
from .checkpoints import Checkpoint, load_part, resolve_checkpoint
from .emotion import bank_options, emotion_tokens
from .errors import InputError
from .portrait import PreparedPortrait
from .sampling import (
    EMOTION_SCALE,
    EXPRESSION_BUCKET,
    LATENT_SCALE,
    MOTION_BUCKET,
    REFERENCE_SCALE,
    SCHEDULER_CONFIG,
    WINDOW,
    Conditions,
    sample,
)

_TOKEN_BATCH = 64
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
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
            vae=vae,
            scheduler=scheduler,
        )

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint | str | None = None, torch_dtype=torch.float32):
        """Load a published checkpoint folder.

        Args:
            checkpoint: a `Checkpoint`, a folder, a checkpoint's name, or None for the first one found.
            torch_dtype: precision of all weights.

        Raises:
            InputError: there is none, a part is missing, or a file is not what it should be.
        """
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = resolve_checkpoint(checkpoint)
        files = {part: checkpoint.file(part) for part in ("unet", "pose_guider", "audio_linear", "emo_model")}
        svd = checkpoint.folder("svd")
        whisper = checkpoint.folder("whisper")
        return cls(
            unet=load_part("unet", files["unet"], torch_dtype),
            pose_guider=load_part("pose_guider", files["pose_guider"], torch_dtype),
            audio_projection=load_part("audio_linear", files["audio_linear"], torch_dtype),
            emotion_model=load_part("emo_model", files["emo_model"], torch_dtype),
            audio_encoder=load_whisper_encoder(whisper, torch_dtype),
            image_encoder=_from_svd(CLIPVisionModelWithProjection, svd, "image_encoder", torch_dtype),
            vae=_from_svd(AutoencoderKLTemporalDecoder, svd, "vae", torch_dtype),
            scheduler=EulerDiscreteScheduler.from_config(SCHEDULER_CONFIG),
        )

    @torch.no_grad()
    def __call__(
        self,
        portrait: PreparedPortrait,
        audio: np.ndarray | Tensor,
        emotion,
        num_inference_steps: int = 25,
        reference_scale: float = REFERENCE_SCALE,
        emotion_scale: float = EMOTION_SCALE,
        guidance_interval: tuple[float, float] | None = None,
        motion_bucket_id: float = MOTION_BUCKET,
        expression_bucket_id: float = EXPRESSION_BUCKET,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
        decode_chunk_size: int = 10,
        output_type: str = "pil",
        callback_on_step_end: Callable[[Any, int, Tensor, dict], dict] | None = None,
        callback_on_step_end_tensor_inputs: tuple[str, ...] = ("latents",),
        return_dict: bool = True,
    ) -> DiceTalkPipelineOutput | tuple:
        """Make a talking portrait.

        Args:
            portrait: as `dicetalk.portrait.prepare_portrait` makes it.
            audio: (samples,) mono speech at 16 kHz; one frame per 80 ms.
            emotion: an `Emotion`, a mix, or an `EmotionTimeline`.
            num_inference_steps: sampling steps.
            reference_scale: how closely the frames keep to the portrait.
            emotion_scale: how strongly speech and emotion act.
            guidance_interval: lowest and highest sigma (0.002 to 700) that are guided; outside, the conditional
                branch alone is computed. None guides everywhere, as published.
            motion_bucket_id, expression_bucket_id: amount of motion of head and face, 8 and 16 as published.
            generator: source of the noise; one on the CPU gives the same noise on every device.
            noise: (N + 25, 4, H/8, W/8) standard normal, instead of a generator.
            decode_chunk_size: frames that the VAE decodes at once.
            output_type: "pil", "np", "pt" or "latent".
            callback_on_step_end: called with the pipeline, the step, its timestep and {"latents": (N + 25, 4, H/8,
                W/8)} after each step; may return {"latents": …} to go on with.

        Raises:
            InputError: an argument cannot be used; the message names it.
        """
        if output_type not in _OUTPUT_TYPES:
            raise InputError(f"output_type is {output_type!r}: use one of {', '.join(_OUTPUT_TYPES)}.")
        if num_inference_steps < 1:
            raise InputError(f"num_inference_steps is {num_inference_steps}: it has to be 1 or more.")
        _check_chunk(decode_chunk_size)
        unknown = set(callback_on_step_end_tensor_inputs) - {"latents"}
        if unknown:
            raise InputError(f"callback_on_step_end_tensor_inputs names {', '.join(unknown)}: only latents is there.")

        conditions = self.encode(portrait, audio, emotion, motion_bucket_id, expression_bucket_id)
        noise = self.prepare_noise(conditions, generator, noise)

        def on_step(step, timestep, latents):
            if callback_on_step_end is None:
                return latents
            inputs = {name: latents for name in callback_on_step_end_tensor_inputs}
            return (callback_on_step_end(self, step, timestep, inputs) or {}).get("latents", latents)

        with self.progress_bar(total=1) as bar:

            def on_window(done, total):
                bar.total = total
                bar.update(1)

            latents = sample(
                self.unet,
                conditions,
                noise,
                self.scheduler,
                num_inference_steps,
                reference_scale,
                emotion_scale,
                guidance_interval=guidance_interval,
                on_step=on_step,
                on_window=on_window,
                device=self._execution_device,
            )
        frames = latents
        if output_type != "latent":
            frames = torch.cat(list(self.decode(latents, decode_chunk_size)))
        if output_type in ("np", "pil"):
            frames = frames.permute(0, 2, 3, 1).numpy()
        if output_type == "pil":
            frames = [Image.fromarray(frame) for frame in (frames * 255).round().astype(np.uint8)]
        self.maybe_free_model_hooks()
        return DiceTalkPipelineOutput(frames=frames) if return_dict else (frames,)

    @torch.no_grad()
    def encode(
        self, portrait, audio, emotion, motion_bucket_id=MOTION_BUCKET, expression_bucket_id=EXPRESSION_BUCKET
    ) -> Conditions:
        """All that the UNet is conditioned on, from the three inputs."""
        device, dtype = self._execution_device, self.unet.dtype
        windows = audio_features(self.audio_encoder, audio, device=device)
        audio_tokens = [
            self.audio_projection(batch.to(device, dtype)).cpu() for batch in windows.split(_TOKEN_BATCH)
        ]
        face_mask = torch.from_numpy(portrait.face_mask)[None, None].to(device, dtype)
        return Conditions(
            image_latent=self._encode_latent(portrait.image, device),
            clip_embeds=self._encode_clip(portrait.image, device),
            audio_tokens=torch.cat(audio_tokens),
            uncond_audio_tokens=self.audio_projection.unconditional(device, dtype).cpu(),
            emotion_tokens=emotion_tokens(self.emotion_model, emotion, len(windows), device=device, dtype=dtype).cpu(),
            uncond_emotion_tokens=self.emotion_model.unconditional(bank_options(emotion), device, dtype).cpu(),
            face_mask=face_mask,
            pose_features=self.pose_guider(face_mask),
            motion_bucket_id=motion_bucket_id,
            expression_bucket_id=expression_bucket_id,
        )

    def prepare_noise(self, conditions: Conditions, generator=None, noise: Tensor | None = None) -> Tensor:
        """(N + 25, 4, h, w) standard normal, float32: drawn, or the one given after its shape is checked."""
        shape = (conditions.num_frames + WINDOW, *conditions.image_latent.shape[1:])
        if noise is None:
            device = "cpu" if generator is None else generator.device
            return torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
        noise = noise[0] if noise.ndim == 5 and len(noise) == 1 else noise
        if tuple(noise.shape) != shape:
            raise InputError(f"noise has shape {tuple(noise.shape)}: {shape} is needed, 25 frames more than are kept.")
        return noise

    @torch.no_grad()
    def decode(self, latents: Tensor, chunk_size: int = 10) -> Iterator[Tensor]:
        """Decode latents piece by piece.

        Args:
            latents: (N, 4, h, w), scaled by 0.18215.
            chunk_size: frames at once, at least 1; the temporal decoder blends frames within a chunk only.

        Yields:
            (up to chunk_size, 3, 8h, 8w) float32 in 0..1, on the CPU.
        """
        _check_chunk(chunk_size)
        for chunk in latents.split(chunk_size):
            chunk = chunk.to(self._execution_device, self.vae.dtype) / LATENT_SCALE
            with torch.no_grad():
                frames = self.vae.decode(chunk, num_frames=len(chunk)).sample
            yield (frames.float() / 2 + 0.5).clamp(0, 1).cpu()

    def _encode_latent(self, image, device):
        dtype = self.vae.dtype
        upcast = dtype == torch.float16 and self.vae.config.force_upcast
        pixels = _to_tensor(image).to(device, torch.float32 if upcast else dtype) * 2 - 1
        if upcast:
            self.vae.to(torch.float32)
        latent = self.vae.encode(pixels).latent_dist.mode()
        if upcast:
            self.vae.to(dtype)
        return latent.float()

    def _encode_clip(self, image, device):
        size = self.image_encoder.config.image_size
        pixels = _to_tensor(image.resize((size, size), Image.Resampling.LANCZOS))
        mean, std = (torch.tensor(x)[:, None, None] for x in (_CLIP_MEAN, _CLIP_STD))
        return self.image_encoder(((pixels - mean) / std).to(device, self.unet.dtype)).image_embeds


def _check_chunk(frames):
    if frames < 1:
        raise InputError(f"decode_chunk_size is {frames}: it has to be 1 or more.")


def _to_tensor(image):
    """PIL RGB → (1, 3, H, W) float32 in 0..1."""
    return torch.from_numpy(np.array(image, dtype=np.float32) / 255).permute(2, 0, 1)[None]


def _from_svd(kind, folder, subfolder, dtype):
    # Without accelerate, which is not needed for so small a model, diffusers would advise to install it.
    options = {"low_cpu_mem_usage": False} if kind is AutoencoderKLTemporalDecoder else {}
    for variant in ("fp16", None):
        try:
            return kind.from_pretrained(
                folder, subfolder=subfolder, variant=variant, torch_dtype=dtype, local_files_only=True, **options
            ).eval()
        except OSError as error:
            reason = " ".join(str(error).split())[:200]
    raise InputError(
        f"{folder / subfolder} cannot be read as Stable Video Diffusion's {subfolder} ({reason}): fetch it with "
        "`python -m dicetalk download --only svd`."
    )
