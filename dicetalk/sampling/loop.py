"""The sampling loop that the pipeline runs: a diffusers scheduler over sliding windows with three-way guidance.

ComfyUI's guider uses the same plan, guidance and conditions with ComfyUI's samplers.
"""

import functools
from typing import Callable

import torch
from torch import Tensor

from ..errors import InputError
from ..memory import free_memory, release
from ..model.settings import LATENT_SCALE
from .conditions import Conditions
from .economy import Economy, too_large, window_bytes
from .finite import require_finite_latents
from .guidance import EMOTION_SCALE, REFERENCE_SCALE, guide, needed_branches, scales_at
from .processes import predicted_by_all, process
from .windows import SHIFT, WINDOW, plan_with_smaller, window_plan

LATENT_COPIES = 9  # tensors of a clip's latents that `sample` holds at one time


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
    portrait = batch("concat_latent").expand(-1, len(frames), -1, -1, -1)
    prediction = unet(
        torch.cat([sample, portrait], dim=2),
        timestep,
        encoder_hidden_states=batch("clip_embeds"),
        added_time_ids=batch("added_time_ids").float(),
        audio_tokens=batch("audio_tokens"),
        emotion_tokens=batch("emotion_tokens"),
        pose_features=conditions.pose_features[:, None].to(device, dtype),
        face_mask=conditions.face_mask.to(device, dtype),
        audio_scale=conditions.speech_strength,
        emotion_scale=conditions.emotion_strength,
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
    denoise: float = 1.0,
) -> Tensor:
    """Denoise a clip as published: Euler over sliding windows with three-way guidance.

    Args:
        unet: a `DiceTalkUNet`; runs in its own dtype. Latents stay float32.
        noise: (N + window, 4, h, w) standard normal.
        scheduler: a diffusers scheduler of one model call a step, such as `EulerDiscreteScheduler` made from
            `SCHEDULER_CONFIG`.
        guidance_interval: lowest and highest sigma that are guided, see `scales_at`.
        on_step: called after each step with its index, its timestep and the latents (N + window, 4, h, w);
            returns the latents to continue with.
        on_window: called after each window with the number of windows done and of all.
        device: where to compute, the UNet's own when None.
        start: the number of steps that are done, and the latents (N + window, 4, h, w) that `on_step` got after them;
            resumes there, with a scheduler that remembers no earlier steps (Euler) bit for bit as if never
            interrupted. The noise is not used then.
        smaller_windows: whether windows may become shorter when memory runs out, see
            `dicetalk.sampling.economy.Economy`. Then the windows that touch nothing that is kept are computed too:
            shorter ones may need what they touch.
        denoise: how much noise there is at the start, as in ComfyUI's KSampler: with less than 1, `num_inference_steps`
            are the last of `num_inference_steps` / `denoise` steps. The portrait, or the video in its place, shows
            through the less noise there is.

    Returns:
        (N, 4, h, w) latents, scaled by 0.18215, float32, on that device.

    Raises:
        InputError: memory ran out, and nothing helped; the message says what would fit. Or windows may become shorter
            in one of several processes alone.
        NotFinite: a step gave values that are not finite.
    """
    if smaller_windows and process()[1] > 1:
        raise InputError("Several processes share out the same windows: leave out smaller windows (--smaller-windows).")
    device = unet.device if device is None else device
    total_steps = int(num_inference_steps / denoise)
    skipped = total_steps - num_inference_steps
    scheduler.set_timesteps(total_steps, device=device)
    if start is None:
        if noise is None:
            raise InputError("noise is None: give noise, or start with the latents of an interrupted run.")
        first_step, portrait = 0, conditions.image_latent.to(device, torch.float32) * LATENT_SCALE
        if len(portrait) > 1:
            portrait = torch.cat([portrait, portrait[-1:].expand(window, -1, -1, -1)])
        latents = portrait + noise.to(device, torch.float32) * scheduler.sigmas[skipped].to(device)
    else:
        first_step, latents = start[0], start[1].to(device, torch.float32)
    if skipped + first_step > 0:
        scheduler.set_begin_index(skipped + first_step)

    @functools.cache
    def plan_for(size):
        if not smaller_windows:
            return window_plan(conditions.num_frames, num_inference_steps, size, overlap, shift)
        return plan_with_smaller(conditions.num_frames, num_inference_steps, size, window, overlap, shift)

    def predict(step, timestep, latents):
        scales = scales_at(float(scheduler.sigmas[skipped + step]), reference_scale, emotion_scale, guidance_interval)
        branches = needed_branches(*scales)
        plan = plan_for(economy.window)
        done, total = (sum(map(len, steps)) for steps in (plan[:step], plan))

        def predicted(frames, branches):
            nonlocal done
            parts = {}
            for group in economy.groups(branches):
                parts |= denoise_window(unet, conditions, latents[frames], timestep, frames, group, device)
            done += 1
            if on_window is not None:
                on_window(done, total)
            return {branch: part.float() for branch, part in parts.items()}

        def guided(parts):
            return guide(parts, *scales)

        return predicted_by_all(plan[step], branches, latents, predicted, guided)

    def refused():
        return _too_large(unet, device, economy.window, conditions, smaller_windows)

    economy = Economy(window, smaller_windows, release=lambda: release(device))
    for step, timestep in enumerate(scheduler.timesteps[skipped + first_step :], first_step):
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
