"""The sampling loop that the pipeline runs: a diffusers scheduler over sliding windows with three-way guidance.

ComfyUI's guider uses the same plan, guidance and conditions with ComfyUI's samplers.
"""

import functools
from typing import Callable

import torch
from torch import Tensor

from ..errors import InputError
from ..memory import free_memory, release
from ..model.settings import EMOTION_SCALE, LATENT_SCALE, REFERENCE_SCALE
from .conditions import Conditions
from .economy import Economy, too_large, window_bytes
from .finite import require_finite_latents
from .guidance import CONDITIONAL, guide, needed_branches, scales_at
from .meter import Meter, middle_features
from .processes import predicted_by_all, process
from .reuse import DeepCache, GuidanceReuse, deep_buffers
from .schedules import LatentConsistency, fresh_noise
from .speed import NOTHING, Savings
from .windows import SHIFT, WINDOW, clamped_plan, plan_with_smaller, window_plan

LATENT_COPIES = 9  # tensors of a clip's latents that `sample` holds at one time
REUSE_COPIES = 3  # further ones when guidance is reused: what was kept, and twice as many channels
SOLVER_COPIES = 2  # further ones of a sampler that remembers the step before, such as dpmpp_2m


def denoise_window(
    unet,
    conditions: Conditions,
    latents: Tensor,
    timestep,
    frames,
    branches,
    device=None,
    step: int = 0,
    deep_cache: DeepCache | None = None,
    watch=None,
) -> dict[str, Tensor]:
    """Run the UNet once on a window, all branches as one batch.

    Args:
        unet: a `DiceTalkUNet`.
        latents: (frames, 4, h, w) of this window, scaled for the model.
        timestep: 0.25·log sigma.
        frames: the window's frame indices.
        branches: names out of `BRANCHES`.
        device: where to compute, the UNet's own when None; an offloaded UNet is elsewhere until it is called.
        step: of sampling, from 0.
        deep_cache: the features of the UNet's inner levels, taken from it and put into it.
        watch: called with the mid block's features (frames, channels, …) of the conditional branch, where it is one
            of the branches; None for none.

    Returns:
        {branch: (frames, 4, h, w) predicted v}.
    """
    dtype, device = unet.dtype, unet.device if device is None else device
    inputs = [conditions.branch(branch, frames) for branch in branches]

    def batch(name):
        return torch.cat([each[name] for each in inputs]).to(device, dtype)

    sample = latents.to(device, dtype).expand(len(branches), -1, -1, -1, -1)
    portrait = batch("concat_latent").expand(-1, len(frames), -1, -1, -1)
    deep: dict[str, Tensor] = {}
    if deep_cache is not None:
        rows = [(branch, frame) for branch in branches for frame in frames]
        deep = deep_buffers(unet, deep_cache, step, rows, sample[0, 0], dtype)
    watched = watch is not None and CONDITIONAL in branches and "deep" not in deep
    prediction, *middle = unet(
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
        mid_features=watched,
        **deep,
    )
    if watched:
        watch(middle[0].unflatten(0, (len(branches), -1))[branches.index(CONDITIONAL)])
    if deep_cache is not None and "deep_out" in deep:
        deep_cache.put(rows, deep["deep_out"])
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
    on_step: Callable[[int, Tensor, Tensor, dict[str, Tensor]], Tensor] | None = None,
    on_window: Callable[[int, int], None] | None = None,
    device=None,
    start: tuple[int, Tensor] | tuple[int, Tensor, dict[str, Tensor]] | None = None,
    smaller_windows: bool = False,
    denoise: float = 1.0,
    savings: Savings = NOTHING,
    sigmas: list[float] | None = None,
    meter: Meter | None = None,
    seed: int = 0,
) -> Tensor:
    """Denoise a clip, unless asked otherwise as published: Euler over sliding windows with three-way guidance.

    Args:
        unet: a `DiceTalkUNet`; runs in its own dtype. Latents stay float32.
        noise: (N + window, 4, h, w) standard normal.
        scheduler: a diffusers scheduler of one model call a step, such as `EulerDiscreteScheduler` made from
            `SCHEDULER_CONFIG`.
        guidance_interval: lowest and highest sigma that are guided, see `scales_at`.
        on_step: called after each step with its index, its timestep, the latents (N + window, 4, h, w), and {name:
            tensor of their shape} of what else the next steps take up; returns the latents to continue with.
        on_window: called after each window with the number of windows done and of all.
        device: where to compute, the UNet's own when None.
        start: the number of steps that are done, the latents (N + window, 4, h, w) and the dict that `on_step` got
            after them; resumes there, bit for bit as if never interrupted (with `savings.deep_cache`, after a step of
            which `savings.begins_anew` says so). The noise is not used then.
        smaller_windows: whether windows may become shorter when memory runs out, see
            `dicetalk.sampling.economy.Economy`. Then the windows that touch nothing that is kept are computed too:
            shorter ones may need what they touch.
        denoise: how much noise there is at the start, as in ComfyUI's KSampler: with less than 1, `num_inference_steps`
            are the last of `num_inference_steps` / `denoise` steps. The portrait, or the video in its place, shows
            through the less noise there is.
        savings: what the steps leave out. With `clamp_windows` the N frames are sampled alone, wherever it says
            N + window here, and of the noise the first N are used.
        sigmas: the noise levels of all steps, those that `denoise` leaves out among them, and 0 behind them; the
            scheduler's own when None.
        meter: reads the middle features of the conditional branch in every window, and in the end the finished clip,
            without its noise.
        seed: of the noise that the steps of "lcm" add; see `dicetalk.sampling.schedules.fresh_noise`.

    Returns:
        (N, 4, h, w) latents, scaled by 0.18215, float32, on that device.

    Raises:
        InputError: memory ran out, and nothing helped; the message says what would fit. Or windows may become shorter
            in one of several processes alone, or the inner levels of other processes' frames are needed.
        NotFinite: a step gave values that are not finite.
    """
    if smaller_windows and process()[1] > 1:
        raise InputError("Several processes share out the same windows: leave out smaller windows (--smaller-windows).")
    if savings.deep_cache > 1 and process()[1] > 1:
        raise InputError(
            "Each process keeps the inner levels of its own windows alone: give --deep-cache 1 (--speed sets 3)."
        )
    device = unet.device if device is None else device
    total_steps = int(num_inference_steps / denoise)
    skipped = total_steps - num_inference_steps
    if sigmas is None:
        scheduler.set_timesteps(total_steps, device=device)
    else:
        scheduler.set_timesteps(sigmas=sigmas, device=device)
    total_frames = conditions.num_frames + savings.extra_frames(window)
    reuse = GuidanceReuse(savings.guidance_reuse)
    deep_cache = DeepCache(savings.deep_cache, total_frames, free_memory) if savings.deep_cache > 1 else None
    if start is None:
        if noise is None:
            raise InputError("noise is None: give noise, or start with the latents of an interrupted run.")
        first_step, portrait = 0, conditions.image_latent.to(device, torch.float32) * LATENT_SCALE
        if len(portrait) > 1:
            portrait = torch.cat([portrait, portrait[-1:].expand(total_frames - len(portrait), -1, -1, -1)])
        latents = portrait + noise[:total_frames].to(device, torch.float32) * scheduler.sigmas[skipped].to(device)
    else:
        first_step, latents = start[0], start[1].to(device, torch.float32)
        carried = start[2] if len(start) == 3 else {}
        if "guidance" in carried:
            reuse.added = carried["guidance"].to(device)
        if "solver" in carried:
            scheduler.remembered = carried["solver"].to(device)
    if skipped + first_step > 0:
        scheduler.set_begin_index(skipped + first_step)
    generator = fresh_noise(seed)
    if isinstance(scheduler, LatentConsistency):
        for _ in range(first_step):  # what the steps that are done have used
            torch.randn(latents.shape, generator=generator)

    @functools.cache
    def plan_for(size):
        if savings.clamp_windows:
            shared = overlap if size == window else min(overlap, size // 2)
            return clamped_plan(conditions.num_frames, num_inference_steps, size, shared, shift)
        if not smaller_windows:
            return window_plan(conditions.num_frames, num_inference_steps, size, overlap, shift)
        return plan_with_smaller(conditions.num_frames, num_inference_steps, size, window, overlap, shift)

    def predict(step, timestep, latents):
        scales = scales_at(float(scheduler.sigmas[skipped + step]), reference_scale, emotion_scale, guidance_interval)
        branches = needed_branches(*scales)
        computed = reuse.branches(step, branches)
        keeps = reuse.keeps(computed)
        plan = plan_for(economy.window)
        done, total = (sum(map(len, steps)) for steps in (plan[:step], plan))

        def predicted(frames, asked):
            nonlocal done
            parts = {}
            watch = None if meter is None else functools.partial(meter.watch, frames=frames)
            for group in economy.groups(asked):
                at_hand = unet, conditions, latents[frames], timestep, frames, group
                parts |= denoise_window(*at_hand, device, step, deep_cache, watch)
            done += 1
            if on_window is not None:
                on_window(done, total)
            return {branch: part.float() for branch, part in parts.items()}

        def guided(parts):
            if len(computed) < len(branches):
                return parts[computed[-1]]
            prediction = guide(parts, *scales)
            return torch.cat([prediction, parts[computed[-1]]], dim=1) if keeps else prediction

        # What guidance starts from is joined as further channels.
        prediction = predicted_by_all(plan[step], computed, latents, predicted, guided, 2 if keeps else 1)
        if keeps:
            prediction, alone = prediction.chunk(2, dim=1)
            reuse.added = prediction - alone
        elif len(computed) < len(branches):
            prediction = prediction + reuse.added
        return prediction

    def refused():
        return _too_large(unet, device, economy.window, conditions, smaller_windows)

    economy = Economy(window, smaller_windows, release=lambda: release(device))
    for step, timestep in enumerate(scheduler.timesteps[skipped + first_step :], first_step):
        scaled = scheduler.scale_model_input(latents, timestep)
        prediction = economy.attempt(refused, predict, step, timestep, scaled)
        latents = scheduler.step(prediction, timestep, latents, generator=generator, return_dict=False)[0]
        require_finite_latents(latents, "--dtype", "--reference-scale and --emotion-scale")
        if on_step is not None:
            carried = {"guidance": reuse.added, "solver": getattr(scheduler, "remembered", None)}
            carried = {name: tensor for name, tensor in carried.items() if tensor is not None}
            latents = on_step(step, timestep, latents, carried)
    latents = latents[: conditions.num_frames]
    if meter is not None:

        def features_of(noisy, sigma, frames):
            return middle_features(unet, conditions, noisy, sigma, frames, device)

        def read():
            meter.read_clip(conditions, latents, features_of, economy.window)

        economy.attempt(refused, read)
    return latents


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
