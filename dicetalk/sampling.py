"""The sampling maths: window plan, three-way guidance, and the loop that the pipeline runs.

Pure functions on numbers and tensors; the ComfyUI guider uses the same ones with ComfyUI's samplers.
"""

import functools
from dataclasses import dataclass
from typing import Callable, Sequence

import torch
from torch import Tensor

from .errors import InputError
from .memory import Economy, free_memory, release, too_large, window_bytes

WINDOW = 25
SHIFT = 7
FPS = 12.5
MOTION_BUCKET = 8
EXPRESSION_BUCKET = 16
LATENT_SCALE = 0.18215
LATENT_CHANNELS = 4
LATENT_COPIES = 9  # tensors of a clip's latents that `sample` holds at one time
REFERENCE_SCALE = 3.0
EMOTION_SCALE = 6.0

UNCONDITIONAL, REFERENCE, CONDITIONAL = "unconditional", "reference", "conditional"
BRANCHES = (UNCONDITIONAL, REFERENCE, CONDITIONAL)

# Stable Video Diffusion's own scheduler settings (scheduler/scheduler_config.json of the published SVD-XT).
SCHEDULER_CONFIG = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "sigma_max": 700.0,
    "sigma_min": 0.002,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
}


class NotFinite(InputError):
    """Sampling came to values that are not finite, so that what it has done so far is of no use."""


def require_finite_latents(latents: Tensor, precision: str, scales: str) -> None:
    """NotFinite if latents hold NaN or infinity, which would become a black video.

    Args:
        latents: of any shape.
        precision, scales: where these are set, in the user's words.
    """
    if not torch.isfinite(latents).all():
        raise NotFinite(
            "Sampling gave values that are not finite numbers (NaN or infinity), of which no picture can be made: "
            f"choose another precision ({precision}), set {scales} lower, or fetch the checkpoint again."
        )


def windows(total: int, step: int, window: int = WINDOW, overlap: int = 0, shift: int = SHIFT) -> list[list[int]]:
    """The windows of one step, as frame indices in 0..total-1.

    Windows start every `window - overlap` frames; the whole row of them moves left by `shift` frames a step
    (modulo the window's length), and what leaves on one side comes back on the other.

    Args:
        total: number of frames sampled, the extra window included; at least `window`.
        step: index of the sampling step, from 0.
    """
    offset = step * shift % window
    return [[(start - offset + i) % total for i in range(window)] for start in range(0, total, window - overlap)]


def window_plan(
    num_frames: int, steps: int, window: int = WINDOW, overlap: int = 0, shift: int = SHIFT
) -> list[list[list[int]]]:
    """The windows to denoise at each step: all whose result reaches one of the first `num_frames` frames.

    `num_frames + window` frames are sampled; the last `window` are dropped, so that near the end some windows touch
    nothing that is kept. A frame depends on another only through a window that holds both, which makes leaving those
    windows out exact for samplers that call the model once a step, at its first sigma (Euler). Others need all.

    Args:
        num_frames: frames that are kept.
        steps: number of sampling steps.

    Returns:
        For each step, its windows as in `windows`.
    """
    plan = [windows(num_frames + window, step, window, overlap, shift) for step in range(steps)]
    needed = set(range(num_frames))
    for step in reversed(range(steps)):
        plan[step] = [frames for frames in plan[step] if needed.intersection(frames)]
        needed = needed.union(*plan[step])
    return plan


def plan_with_smaller(
    num_frames: int, steps: int, size: int, window: int = WINDOW, overlap: int = 0, shift: int = SHIFT
) -> list[list[list[int]]]:
    """A plan that one of another `size` can follow at any step: all windows, of `size` frames each.

    Args:
        num_frames: frames that are kept; `window` more are sampled.
        steps: number of sampling steps.
        size: frames of a window, at most `window`; then the overlap is at most half of it.
    """
    overlap = overlap if size == window else min(overlap, size // 2)
    return [windows(num_frames + window, step, size, overlap, shift) for step in range(steps)]


def _shares(reference_scale, emotion_scale):
    """Each branch's weight in the guided prediction; they sum to 1."""
    return dict(zip(BRANCHES, (1 - reference_scale, reference_scale - emotion_scale, emotion_scale)))


def needed_branches(reference_scale: float, emotion_scale: float) -> tuple[str, ...]:
    """The branches that have a part in the guided prediction; with a scale of 1, or equal scales, one drops out."""
    shares = _shares(reference_scale, emotion_scale)
    return tuple(branch for branch in BRANCHES if shares[branch] != 0)


def scales_at(
    sigma: float, reference_scale: float, emotion_scale: float, interval: tuple[float, float] | None
) -> tuple[float, float]:
    """The two scales at this sigma: those given inside the interval (low, high), 1 and 1 outside of it.

    With both at 1 the prediction is that of the conditional branch alone, a third of the work (Kynkäänniemi et al.,
    arXiv 2404.07724, found guidance to matter in a middle range of noise levels only). None is everywhere.
    """
    if interval is None or interval[0] <= sigma <= interval[1]:
        return reference_scale, emotion_scale
    return 1.0, 1.0


def guide(predictions: dict[str, Tensor], reference_scale: float, emotion_scale: float) -> Tensor:
    """U + reference_scale (R − U) + emotion_scale (C − R), from the branches that `needed_branches` names."""
    if len(predictions) == len(BRANCHES):
        u, r, c = (predictions[branch] for branch in BRANCHES)
        return u + reference_scale * (r - u) + emotion_scale * (c - r)
    shares = _shares(reference_scale, emotion_scale)
    return sum(prediction * shares[branch] for branch, prediction in predictions.items())


@dataclass(frozen=True)
class Conditions:
    """All that a clip's denoising is conditioned on, before guidance; batch size 1. `N` frames are kept.

    Attributes:
        image_latent: (1, 4, h, w) the portrait, unscaled VAE latent (mode of the posterior).
        clip_embeds: (1, dim) projected CLIP embedding of the portrait.
        audio_tokens: (N, tokens, dim).
        uncond_audio_tokens: (1, tokens, dim) tokens of an all-zero window.
        emotion_tokens: (1 or N, tokens, dim), one set for the clip or one per frame.
        uncond_emotion_tokens: (1, tokens, dim) tokens of the zero emotion.
        face_mask: (1, 1, 8h, 8w) in 0..1.
        pose_features: (1, channels, h, w).
        fps, motion_bucket_id, expression_bucket_id: the UNet's three time ids.
    """

    image_latent: Tensor
    clip_embeds: Tensor
    audio_tokens: Tensor
    uncond_audio_tokens: Tensor
    emotion_tokens: Tensor
    uncond_emotion_tokens: Tensor
    face_mask: Tensor
    pose_features: Tensor
    fps: float = FPS
    motion_bucket_id: float = MOTION_BUCKET
    expression_bucket_id: float = EXPRESSION_BUCKET

    @property
    def num_frames(self) -> int:
        return len(self.audio_tokens)

    def branch(self, name: str, frames: Sequence[int]) -> dict[str, Tensor]:
        """One branch's inputs for a window; frames from `num_frames` on are the extra, unconditional ones.

        Returns:
            concat_latent (1, 4, h, w), clip_embeds (1, 1, 1, dim), audio_tokens (1, frames, tokens, dim),
            emotion_tokens (1, frames or 1, tokens, dim), added_time_ids (1, 3).
        """
        seen = name != UNCONDITIONAL
        told = name == CONDITIONAL
        one_emotion = len(self.emotion_tokens) == 1 and max(frames) < self.num_frames
        emotions = self.emotion_tokens.expand(self.num_frames, -1, -1)
        ids = (self.fps, self.motion_bucket_id, self.expression_bucket_id)
        return {
            "concat_latent": self.image_latent if seen else torch.zeros_like(self.image_latent),
            "clip_embeds": (self.clip_embeds if seen else torch.zeros_like(self.clip_embeds))[:, None, None],
            "audio_tokens": _pick(self.audio_tokens, self.uncond_audio_tokens, frames, told)[None],
            "emotion_tokens": _pick(emotions, self.uncond_emotion_tokens, frames[:1] if one_emotion else frames, told)[
                None
            ],
            "added_time_ids": torch.tensor([ids], dtype=torch.float32, device=self.image_latent.device),
        }


def _pick(tokens: Tensor, unconditional: Tensor, frames: Sequence[int], told: bool) -> Tensor:
    """The tokens of these frames; the unconditional ones past the end, and everywhere when not told."""
    if not told:
        return unconditional.expand(len(frames), -1, -1)
    return torch.cat([tokens[f : f + 1] if f < len(tokens) else unconditional for f in frames])


def denoise_window(
    unet, conditions: Conditions, latents: Tensor, timestep, frames, branches, device=None
) -> dict[str, Tensor]:
    """Run the UNet once on a window, all branches as one batch.

    Args:
        unet: a `DiceTalkUNet`.
        latents: (frames, 4, h, w) of this window, scaled for the model.
        timestep: 0.25·log sigma.
        frames: the window's frame indices.
        branches: names out of `BRANCHES`.
        device: where to compute, the UNet's own when None; an offloaded UNet is elsewhere until it is called.

    Returns:
        {branch: (frames, 4, h, w) predicted v}.
    """
    dtype, device = unet.dtype, unet.device if device is None else device
    inputs = [conditions.branch(branch, frames) for branch in branches]

    def batch(name):
        return torch.cat([each[name] for each in inputs]).to(device, dtype)

    sample = latents.to(device, dtype).expand(len(branches), -1, -1, -1, -1)
    portrait = batch("concat_latent")[:, None].expand(-1, len(frames), -1, -1, -1)
    prediction = unet(
        torch.cat([sample, portrait], dim=2),
        timestep,
        encoder_hidden_states=batch("clip_embeds"),
        added_time_ids=batch("added_time_ids").float(),
        audio_tokens=batch("audio_tokens"),
        emotion_tokens=batch("emotion_tokens"),
        pose_features=conditions.pose_features[:, None].to(device, dtype),
        face_mask=conditions.face_mask.to(device, dtype),
        return_dict=False,
    )[0]
    return dict(zip(branches, prediction))


def sample(
    unet,
    conditions: Conditions,
    noise: Tensor | None,
    scheduler,
    num_inference_steps: int = 25,
    reference_scale: float = REFERENCE_SCALE,
    emotion_scale: float = EMOTION_SCALE,
    window: int = WINDOW,
    overlap: int = 0,
    shift: int = SHIFT,
    guidance_interval: tuple[float, float] | None = None,
    on_step: Callable[[int, Tensor, Tensor], Tensor] | None = None,
    on_window: Callable[[int, int], None] | None = None,
    device=None,
    start: tuple[int, Tensor] | None = None,
    smaller_windows: bool = False,
) -> Tensor:
    """Denoise a clip as published: Euler over sliding windows with three-way guidance.

    Args:
        unet: a `DiceTalkUNet`; runs in its own dtype. Latents stay float32.
        noise: (N + window, 4, h, w) standard normal.
        scheduler: a diffusers scheduler of one model call a step, such as `EulerDiscreteScheduler` made from
            `SCHEDULER_CONFIG`.
        guidance_interval: lowest and highest sigma that are guided, see `scales_at`.
        on_step: called after each step with its index, its timestep and the latents (N + window, 4, h, w);
            returns the latents to go on with.
        on_window: called after each window with the number of windows done and of all.
        device: where to compute, the UNet's own when None.
        start: the number of steps that are done, and the latents (N + window, 4, h, w) that `on_step` got after them;
            goes on from there, with a scheduler that remembers no earlier steps (Euler) bit for bit as if never
            interrupted. The noise is not used then.
        smaller_windows: whether windows may become shorter when memory runs out, see `dicetalk.memory.Economy`. Then
            the windows that touch nothing that is kept are computed too: shorter ones may need what they touch.

    Returns:
        (N, 4, h, w) latents, scaled by 0.18215, float32, on that device.

    Raises:
        InputError: memory ran out, and nothing helped; the message says what would fit.
        NotFinite: a step gave values that are not finite.
    """
    device = unet.device if device is None else device
    scheduler.set_timesteps(num_inference_steps, device=device)
    if start is None:
        first_step, portrait = 0, conditions.image_latent.to(device, torch.float32) * LATENT_SCALE
        latents = portrait + noise.to(device, torch.float32) * scheduler.sigmas[0].to(device)
    else:
        first_step, latents = start[0], start[1].to(device, torch.float32)
        scheduler.set_begin_index(first_step)

    @functools.cache
    def plan_for(size):
        if not smaller_windows:
            return window_plan(conditions.num_frames, num_inference_steps, size, overlap, shift)
        return plan_with_smaller(conditions.num_frames, num_inference_steps, size, window, overlap, shift)

    def predict(step, timestep, latents):
        scales = scales_at(float(scheduler.sigmas[step]), reference_scale, emotion_scale, guidance_interval)
        branches = needed_branches(*scales)
        plan = plan_for(economy.window)
        done, total = (sum(map(len, steps)) for steps in (plan[:step], plan))
        prediction, count = torch.zeros_like(latents), latents.new_zeros(len(latents), 1, 1, 1)
        for number, frames in enumerate(plan[step], 1):
            parts = {}
            for group in [branches] if economy.together else [(branch,) for branch in branches]:
                parts |= denoise_window(unet, conditions, latents[frames], timestep, frames, group, device)
            prediction[frames] += guide({branch: part.float() for branch, part in parts.items()}, *scales)
            count[frames] += 1
            if on_window is not None:
                on_window(done + number, total)
        return prediction / count.clamp(min=1)

    def refused():
        return _too_large(unet, device, economy.window, conditions, smaller_windows)

    economy = Economy(window, smaller_windows, release=lambda: release(device))
    for step, timestep in enumerate(scheduler.timesteps[first_step:], first_step):
        scaled = scheduler.scale_model_input(latents, timestep)
        prediction = economy.attempt(refused, predict, step, timestep, scaled)
        latents = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
        require_finite_latents(latents, "--dtype", "--reference-scale and --emotion-scale")
        if on_step is not None:
            latents = on_step(step, timestep, latents)
    return latents[: conditions.num_frames]


def _too_large(unet, device, frames, conditions, smaller_windows):
    height, width = (8 * side for side in conditions.image_latent.shape[2:])
    return too_large(
        device,
        width,
        height,
        frames,
        window_bytes(unet, frames, width, height),
        free_memory(device),
        lambda side: f"prepare the portrait with a short side of {side} pixels (--size {side})",
        None if smaller_windows else "allow shorter windows, which changes the result (--smaller-windows)",
    )
