"""The guider: three-way guidance over sliding windows, for any ComfyUI sampler, scheduler and noise."""

import logging
import math
import uuid

import comfy.conds
import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
import comfy.samplers
import latent_preview
import numpy as np
import torch

from ...dicetalk.errors import InputError
from ...dicetalk.memory import is_out_of_memory
from ...dicetalk.reading.chart import meter_chart
from ...dicetalk.sampling.conditions import Conditions
from ...dicetalk.sampling.economy import Economy, too_large
from ...dicetalk.sampling.finite import require_finite_latents
from ...dicetalk.sampling.guidance import BRANCHES, CONDITIONAL, UNCONDITIONAL, guide, needed_branches, scales_at
from ...dicetalk.sampling.meter import SIGMAS, as_asked, strongest
from ...dicetalk.sampling.reuse import DeepCache, GuidanceReuse
from ...dicetalk.sampling.shares import shared_out
from ...dicetalk.sampling.speed import NOTHING
from ...dicetalk.sampling.windows import WINDOW, clamped_plan, joined, plan_with_smaller, window_plan
from ..preview import show_while_running
from ..progress import TimeLeft, say
from .model import DEEP_CACHE, WATCH, DiceTalkModel, Shared

_CALC_COND_BATCH = comfy.patcher_extension.WrappersMP.CALC_COND_BATCH
# One model call a step, at the step's own sigma; frames meet only inside the model. Then no window goes to waste.
_SINGLE_EVALUATION = {"sample_euler", "sample_euler_ancestral", "sample_dpmpp_2m", "sample_ddpm", "sample_lcm"}
# Tensors of the clip's latents on the device at a time: x, its derivative, what is summed up … A test counts them where
# there is a GPU; at the published size a clip of 10 minutes took 8.1 of them there.
_CLIP_COPIES = 8
_REUSE_COPIES = 3  # further ones when guidance is reused: what was kept, what it is taken from, and its difference
_TWO_WAY_ONLY = ("sampler_cfg_function", "sampler_pre_cfg_function", "sampler_calc_cond_batch_function")


def step_index(sigmas, sigma):
    """The sampling step that an evaluation at `sigma` belongs to.

    Args:
        sigmas: the schedule, falling, its last entry the end.
        sigma: where the model is called; between two entries it belongs to the step that starts at the larger one.
    """
    reached = sum(1 for start in sigmas[:-1] if start >= sigma * (1 - 1e-4))
    return max(reached - 1, 0)


class DiceTalkGuider(comfy.samplers.CFGGuider):
    """GUIDER for a DICE-Talk MODEL.

    Latents go in and out with the N frames of the clip; one window more is sampled behind them and dropped, as
    published, so that the wrap-around of the windows does not join the last frame to the first.

    What other nodes hang on the MODEL:
        - Wrappers act as on any model. CALC_COND_BATCH wrappers are called once a step, around all its windows, and
          get the whole clip, no conditions, and what is returned: a list of the guided prediction.
        - Every row of the model's batch has its own entry in `transformer_options["uuids"]`, its branch and frame.
          EasyCache, which keys its cache by them, so remembers each frame of each branch, wherever the windows have
          moved since; it judges the change by the clip's first frame, and skips or computes all windows of a step.
          LazyCache remembers the guided prediction of the whole clip.
        - Functions after guidance (`sampler_post_cfg_function`, CFG++ samplers) get the whole clip's guided, its
          conditional and its unconditional prediction. Those that replace two-way guidance (RescaleCFG and its like)
          have nothing to act on here, and a warning says so.

    Args:
        model_patcher: a DICE-Talk MODEL.
        conditions: `dicetalk.sampling.conditions.Conditions` of the clip.
        reference_scale, emotion_scale: strengths of the two guidances.
        overlap, shift: of the windows, in frames.
        guidance_interval: lowest and highest sigma that are guided, None for all; see
            `dicetalk.sampling.guidance.scales_at`.
        smaller_windows: whether windows may become shorter when memory runs out; see
            `dicetalk.sampling.economy.Economy`.
        savings: what the steps leave out. Where functions after guidance need every branch's prediction, guidance is
            computed at every step all the same; with EasyCache on the MODEL, so are the inner levels.
        meter: `dicetalk.sampling.meter.Meter` that reads the middle features of the conditional branch in every
            window, and in the end the clip, where the sigmas go down to its own. A chart of what it read last is shown
            beside the preview, after each step. None for none.
        asked: (N, 8), what the emotion asks for, of `dicetalk.sampling.meter.asked_shares`; with a meter.

    Raises:
        InputError: the MODEL is another kind of model.
    """

    def __init__(
        self,
        model_patcher,
        conditions: Conditions,
        reference_scale,
        emotion_scale,
        overlap=0,
        shift=7,
        guidance_interval=None,
        smaller_windows=False,
        savings=NOTHING,
        meter=None,
        asked=None,
    ):
        if not isinstance(model_patcher.model, DiceTalkModel):
            kind = type(model_patcher.model).__name__
            raise InputError(f"The MODEL is a {kind}, not DICE-Talk's: connect the output of Load DICE-Talk.")
        super().__init__(model_patcher)
        self.conditions = conditions
        self.reference_scale, self.emotion_scale = reference_scale, emotion_scale
        self.overlap, self.shift = overlap, shift
        self.guidance_interval = guidance_interval
        self.smaller_windows, self.savings = smaller_windows, savings
        self.meter, self._asked = meter, asked
        self.cfg = emotion_scale
        self.uuid = uuid.uuid4()
        self.model_options: dict = comfy.model_patcher.create_model_options_clone(self.model_options)
        comfy.patcher_extension.add_wrapper_with_key(
            comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING,
            "dicetalk_window",
            _prepare_for(
                WINDOW * len(needed_branches(reference_scale, emotion_scale)),
                savings.extra_frames(WINDOW),
                self._copies,
            ),
            self.model_options,
            is_model_options=True,
        )

    def sample(
        self, noise, latent_image, sampler, sigmas, denoise_mask=None, callback=None, disable_pbar=False, seed=None
    ):
        """As `CFGGuider.sample`.

        Args:
            noise: (N, 4, h, w); or (N + 25, 4, h, w), with the noise of the extra window too.
            latent_image: (N, 4, h, w) unscaled.

        Returns:
            (N, 4, h, w) unscaled.

        Raises:
            InputError: a LATENT of another length or size; memory ran out, and nothing helped; or what came out is not
                finite.
        """
        frames = self.conditions.num_frames
        self._check_latent(latent_image, frames)
        extra = self.savings.extra_frames(WINDOW)
        portrait = self.conditions.image_latent[-1:].to(latent_image).expand(extra, -1, -1, -1)
        if denoise_mask is not None and len(denoise_mask) == frames:
            denoise_mask = torch.cat([denoise_mask, torch.ones_like(denoise_mask[:1]).repeat_interleave(extra, 0)])
        self._check_model_options()
        self._time_left = TimeLeft()
        self._reuse = GuidanceReuse(self.savings.guidance_reuse)
        self._deep_cache = self._new_deep_cache(frames + extra)
        if self.meter is not None:
            patcher = self.model_patcher
            self._previewer = latent_preview.get_previewer(patcher.load_device, patcher.model.latent_format)
            self._preview = None
            self._reads_clip = len(sigmas) > 0 and float(sigmas[-1]) <= min(SIGMAS)
        self._plans = {WINDOW: self._window_plan(frames, max(len(sigmas) - 1, 1), sampler)}
        self._economy = Economy(
            WINDOW,
            self.smaller_windows,
            comfy.model_management.soft_empty_cache,
            lambda error: comfy.model_management.is_oom(error) or is_out_of_memory(error),
        )

        def report(step, x0, x, total_steps):
            callback(step, x0[:frames], x[:frames], total_steps)
            if self.meter is not None:
                self._show_reading(step + 1, total_steps, x0[:frames])

        samples = super().sample(
            _with_extra_noise(noise, frames, seed)[: frames + extra],
            torch.cat([latent_image, portrait]),
            sampler,
            sigmas,
            denoise_mask,
            callback and report,
            disable_pbar,
            seed,
        )
        require_finite_latents(samples, "weight_dtype of Load DICE-Talk", "reference_scale and emotion_scale")
        if self.meter is not None and self._reads_clip:
            read = self.meter.shares
            say(f"the network reads {strongest(read)}; {as_asked(read, self._asked):.0%} as asked")
            steps = max(len(sigmas) - 1, 1)
            show_while_running(self.chart(), self._preview, steps, steps)
        return samples[:frames]

    def chart(self):
        """A PIL image of what was asked, and what the meter reads in the finished clip, over time."""
        return meter_chart(self.meter.shares, self._asked, "the clip")

    def predict_noise(self, x, timestep, model_options={}, seed=None):
        """The guided, denoised latents (N + 25, 4, h, w) at the sigmas `timestep` (N + 25,)."""
        sigmas = model_options["transformer_options"]["sample_sigmas"].tolist()
        self._step = step_index(sigmas, float(timestep[0]))
        wrappers = comfy.patcher_extension.get_all_wrappers(_CALC_COND_BATCH, model_options, is_model_options=True)
        executor = comfy.patcher_extension.WrapperExecutor.new_executor(self._predict, wrappers)
        denoised, *two_way = executor.execute(self.inner_model, [], x, timestep, model_options)
        for function in model_options.get("sampler_post_cfg_function", []):
            denoised = function(
                {
                    "denoised": denoised,
                    "cond": _NoConds(),
                    "uncond": _NoConds(),
                    "cond_scale": self.cfg,
                    "model": self.inner_model,
                    "cond_denoised": two_way[0],
                    "uncond_denoised": two_way[1],
                    "sigma": timestep,
                    "model_options": model_options,
                    "input": x,
                }
            )
        return denoised

    def _predict(self, model, conds, x, timestep, model_options):
        """The clip's guided prediction; and its conditional and unconditional ones, if a function asks for them."""
        options = comfy.model_patcher.create_model_options_clone(model_options)
        options["transformer_options"].get("wrappers", {}).pop(_CALC_COND_BATCH, None)
        options.pop("context_handler", None)  # the windows are the method's own
        if self._deep_cache is not None:
            options["transformer_options"][DEEP_CACHE] = self._deep_cache, self._step
        if self.meter is not None:
            options["transformer_options"][WATCH] = self._watch
        two_way = bool(model_options.get("sampler_post_cfg_function"))
        scales = scales_at(float(timestep[0]), self.reference_scale, self.emotion_scale, self.guidance_interval)
        branches = BRANCHES if two_way else needed_branches(*scales)

        judge = [self._row_uuid(branches[-1], 0)]
        computed = branches if two_way else self._reuse.branches(self._step, branches)
        keeps = not two_way and self._reuse.keeps(computed)
        given = model, x, timestep, options, computed, scales, two_way, judge
        predictions = self._economy.attempt(
            self._too_large, self._predict_windows, *given, len(computed) < len(branches), keeps
        )
        # What guidance adds is kept in v, whose size depends less on sigma than that of clean latents does.
        sigma = float(timestep[0])
        from_v = sigma / math.sqrt(sigma**2 + 1)
        if keeps:
            self._reuse.added = (predictions[0] - predictions.pop()) / from_v
        elif len(computed) < len(branches):
            predictions[0] += self._reuse.added * from_v
        return predictions

    def _predict_windows(self, model, x, timestep, options, branches, scales, two_way, judge, alone, keeps):
        """The clip's predictions: guided, or if `alone` the last branch's; and, if it is to be kept, that one."""
        windows, done = self._windows, 0

        def guided(parts):
            if alone:
                return [parts[branches[-1]]]
            if keeps:
                return [guide(parts, *scales), parts[branches[-1]]]
            return [guide(parts, *scales), *((parts[CONDITIONAL], parts[UNCONDITIONAL]) if two_way else ())]

        def predicted(frames):
            nonlocal done
            # The row is used up at the first attempt: at a second one EasyCache would find that nothing has changed.
            _let_easycache_judge_by(judge.pop() if judge else None, options)
            parts = self._denoise(model, x[frames], timestep[frames], frames, branches, options)
            done += 1
            self._tell(done, len(windows))
            return guided(parts)

        # EasyCache keeps what a frame's branch changed by on the device that computed it, and windows move on.
        if "multigpu_clones" in options and "easycache" not in options["transformer_options"]:
            made = iter(self._predict_on_all(x, timestep, options, branches, guided))
            predicted = lambda frames: next(made)  # noqa: E731
        joint = joined(windows, x, predicted)
        if not done:
            self._tell(len(windows), len(windows))
        return joint

    def _predict_on_all(self, x, timestep, options, branches, guided):
        """What `guided` makes of each window's branches, of all windows of the step, by all devices of MultiGPU.

        ComfyUI would share out the three branches of one window after the other, of which one of two devices computes
        two while the other waits.
        """
        clones, pool = options["multigpu_clones"], options.get("multigpu_thread_pool")
        shares = zip(clones, shared_out(len(self._windows), branches, len(clones)))
        shares = [(device, share) for device, share in shares if share]
        made, errors = [], []
        for device, share in shares:
            arguments = (device, share, clones[device].model, x, timestep, options, branches, guided)
            if pool is None:
                made += self._predict_on(*arguments)
            else:
                pool.submit(device, self._predict_on, *arguments)
        for device, _ in shares if pool else ():
            result, error = pool.get_result(device)  # of all, so that none is there at the next step
            made += result or []
            errors += [error] if error else []
        if errors:
            raise errors[0]
        pieces = dict(piece for piece in made if not isinstance(piece[1], dict))
        split = {}
        for window, parts in made:
            if isinstance(parts, dict):
                split.setdefault(window, {}).update(parts)
        pieces |= {window: guided(parts) for window, parts in split.items()}
        return [pieces.pop(window) for window in range(len(self._windows))]

    def _predict_on(self, device, share, model, x, timestep, options, branches, guided):
        """(window, `guided` of it) for whole windows of a share; (window, {branch: prediction}) for parts of one."""
        comfy.model_management.set_torch_device(device)
        options = comfy.model_patcher.create_model_options_clone(options)
        del options["multigpu_clones"]
        inside = options["transformer_options"]
        inside["sample_sigmas"] = inside["sample_sigmas"].to(device)
        inside["multigpu_thread_device"] = device
        comfy.samplers.cast_transformer_options(inside, device=device)
        made = []
        with torch.no_grad():
            for part in share:
                frames = self._windows[part.window]
                given = x[frames].to(device), timestep[frames].to(device)
                parts = self._denoise(model, *given, frames, part.branches, options)
                whole = len(part.branches) == len(branches)
                piece = [each.to(x.device) for each in guided(parts)] if whole else {}
                made.append((part.window, piece or {name: each.to(x.device) for name, each in parts.items()}))
        return made

    def _tell(self, window, windows):
        """Say which window was sampled, and how long the rest may take; the log has a line for each step."""
        steps = len(self._plans[WINDOW])
        left = self._time_left.after((self._step + window / windows) / steps)
        text = f"step {self._step + 1} of {steps}, window {window} of {windows}, {left}"
        reads = "" if self.meter is None else self.meter.text(self.conditions.num_frames)
        say(f"{text}; {reads}" if reads else text, in_log=window == windows)

    def _denoise(self, model, x, timestep, frames, branches, options):
        """Each branch's prediction for a window: ComfyUI batches them as memory allows, or one after the other."""
        parts = {}
        # ComfyUI begins with the last.
        for group in reversed(self._economy.groups(branches)):
            comfy.model_management.throw_exception_if_processing_interrupted()
            conds = [self._conds(branch, frames, x.device) for branch in group]
            parts |= zip(group, comfy.samplers.calc_cond_batch(model, conds, x, timestep, options))
        return parts

    def _watch(self, features, rows):
        """Show the meter the rows of the conditional branch that were computed."""
        places = [place for place, (branch, _) in enumerate(rows) if branch == CONDITIONAL]
        places = [place for place, known in zip(places, features[places].isfinite().all(1).tolist()) if known]
        if places:
            self.meter.watch(features[places][..., None, None], [rows[place][1] for place in places])

    def _show_reading(self, done, total, x0):
        """Show the chart of what was read last, beside the preview of the latents x0 (N, 4, h, w)."""
        seen = self.meter.seen(self.conditions.num_frames)
        self._preview = self._previewer and self._previewer.decode_latent_to_preview(x0)
        if not np.isnan(seen).all():
            show_while_running(meter_chart(seen, self._asked, f"step {done} of {total}"), self._preview, done, total)

    def _read_clip(self, samples, device):
        """Let the meter read the finished clip, (N + 25, 4, h, w) unscaled."""
        latents = self.inner_model.process_latent_in(samples[: self.conditions.num_frames].to(device)).float()
        # Without what other nodes hang on the MODEL, such as caches, which count the sampler's steps.
        inside = dict(self.model_options.get("transformer_options", {}))
        inside.pop("wrappers", None)

        def features_of(noisy, sigma, frames):
            comfy.model_management.throw_exception_if_processing_interrupted()
            seen = {}
            inside[WATCH] = lambda features, rows: seen.update(zip([frame for _, frame in rows], features))
            conds = [self._conds(CONDITIONAL, frames, device)]
            timestep = torch.full((len(frames),), sigma, device=device)
            comfy.samplers.calc_cond_batch(self.inner_model, conds, noisy, timestep, {"transformer_options": inside})
            return torch.stack([seen[frame] for frame in frames])[..., None, None]

        def read():
            self.meter.read_clip(self.conditions, latents, features_of, self._economy.window)

        say("reading the emotion of the finished clip", in_log=False)
        self._economy.attempt(self._too_large, read)

    @property
    def _windows(self):
        """The windows of the step at hand."""
        size = self._economy.window
        if size not in self._plans:
            frames, steps = self.conditions.num_frames, len(self._plans[WINDOW])
            if self.savings.clamp_windows:
                self._plans[size] = clamped_plan(frames, steps, size, min(self.overlap, size // 2), self.shift)
            else:
                self._plans[size] = plan_with_smaller(frames, steps, size, overlap=self.overlap, shift=self.shift)
        return self._plans[size][self._step]

    def _too_large(self):
        frames, (height, width) = self._economy.window, self.conditions.image_latent.shape[2:]
        device = self.model_patcher.load_device
        return too_large(
            device,
            8 * width,
            8 * height,
            frames,
            self.inner_model.memory_required([frames, 4, height, width]),
            comfy.model_management.get_free_memory(device),
            lambda side: f"set short_side of DICE-Talk Portrait to {side}",
            None if self.smaller_windows else "switch on smaller_windows, which changes the result",
        )

    def _row_uuid(self, branch, frame):
        return self.uuid, branch, frame

    def inner_sample(self, noise, latent_image, device, *args, **kwargs):
        self._shared = {}
        try:
            samples = super().inner_sample(noise, latent_image, device, *args, **kwargs)
            if self.meter is not None and self._reads_clip:
                self._read_clip(samples, device)
            return samples
        finally:
            del self._shared

    def _shared_on(self, device):
        """The conditions that all branches and windows share."""
        if device not in self._shared:
            self._shared[device] = {
                "pose_features": Shared(self.conditions.pose_features[:, None].to(device)),
                "face_mask": Shared(self.conditions.face_mask.to(device)),
                "audio_scale": comfy.conds.CONDConstant(self.conditions.speech_strength),
                "emotion_scale": comfy.conds.CONDConstant(self.conditions.emotion_strength),
            }
        return self._shared[device]

    def _conds(self, branch, frames, device):
        conds = self.inner_model.window_conds(self.conditions, branch, frames)
        for cond in conds.values():
            cond.cond = cond.cond.to(device)
        rows = tuple(self._row_uuid(branch, frame) for frame in frames)
        return [{"model_conds": conds | self._shared_on(device), "uuid": rows}]

    def _new_deep_cache(self, frames):
        if self.savings.deep_cache == 1:
            return None
        if "easycache" in self.model_options.get("transformer_options", {}):
            logging.warning("deep_cache has no effect with EasyCache on the MODEL, which leaves out whole steps.")
            return None
        return DeepCache(self.savings.deep_cache, frames, comfy.model_management.get_free_memory)

    @property
    def _copies(self):
        """Tensors of the clip's latents on the device at a time."""
        return _CLIP_COPIES + _REUSE_COPIES * (self.savings.guidance_reuse > 1)

    def _window_plan(self, frames, steps, sampler):
        if self.savings.clamp_windows:
            return clamped_plan(frames, steps, overlap=self.overlap, shift=self.shift)
        name = getattr(getattr(sampler, "sampler_function", None), "__name__", None)
        if name in _SINGLE_EVALUATION and not self.smaller_windows:
            return window_plan(frames, steps, overlap=self.overlap, shift=self.shift)
        return plan_with_smaller(frames, steps, WINDOW, overlap=self.overlap, shift=self.shift)

    def _check_model_options(self):
        inside = self.model_options.get("transformer_options", {})
        if inside.get("patches_replace"):
            raise InputError(
                "A node on the MODEL replaces attention inside the UNet (as Self-Attention Guidance does), which "
                "DICE-Talk's UNet has no place for: remove it."
            )
        if inside.get("patches"):
            logging.warning(
                "Patches inside the UNet (as those of Token Merging, HyperTile and Kohya Deep Shrink) have no effect "
                "on DICE-Talk's: %s.",
                ", ".join(inside["patches"]),
            )
        for name in _TWO_WAY_ONLY:
            if self.model_options.get(name):
                logging.warning("%s on the MODEL has no effect on DICE-Talk's three-way guidance.", name)
        if self.model_options.get("context_handler"):
            logging.warning("Context windows on the MODEL have no effect: DICE-Talk has windows of its own.")

    def _check_latent(self, latent, frames):
        portrait = self.conditions.image_latent
        if latent.ndim != 4 or latent.shape[1:] != portrait.shape[1:]:
            raise InputError(
                f"The LATENT's shape {tuple(latent.shape)} does not fit the portrait's {tuple(portrait.shape[1:])}: "
                "use the LATENT that the guider gives, or encode video of the portrait's size."
            )
        if len(latent) != frames:
            raise InputError(f"The LATENT holds {len(latent)} frames, the speech {frames}: make them equal.")


class _NoConds(list):
    """Placeholder for the conditions, which differ from window to window, where ComfyUI hands them to a function."""

    def __iter__(self):
        raise InputError(
            "A node on the MODEL wants to call the model again for its own guidance (as PAG and SAG do), which "
            "DICE-Talk's windows do not allow: remove it."
        )


def _let_easycache_judge_by(row, model_options):
    """Which row EasyCache judges the step by, None for none: it must decide once a step, in the first window.

    That window always holds frame 0, and the last branch is the one that ComfyUI runs first.
    """
    cache = model_options["transformer_options"].get("easycache")
    if hasattr(cache, "first_cond_uuid"):
        cache.first_cond_uuid, cache.initial_step = row, False


def _prepare_for(rows, extra, copies):
    """Plan memory for `rows` latents at once, and for `copies` of the clip's own, `extra` frames among them.

    ComfyUI makes room for twice what it reads here, and loads no more weights than leave room for once that, since it
    can halve what is computed at once. One branch of a window and the clip's own latents cannot be halved.
    """

    def prepare(executor, model, noise_shape, conds, *args, **kwargs):
        one = model.model.memory_required([1, *noise_shape[1:]])
        kept = rows // WINDOW if "easycache" in model.model_options.get("transformer_options", {}) else 0
        kept += bool(model.get_additional_models_with_key("multigpu"))  # what the devices made, until it is joined
        clip = (copies + kept) * 4 * math.prod([noise_shape[0] + extra, *noise_shape[1:]])
        told = math.ceil(max((rows + clip / one) / 2, WINDOW + clip / one))
        return executor(model, [told, *noise_shape[1:]], conds, *args, **kwargs)

    return prepare


def _with_extra_noise(noise, frames, seed):
    """Noise for one window more, which continues what ComfyUI drew for this seed.

    Where noise is off, because the latent has the noise of earlier steps in it, the extra window, which is not in the
    latent, needs its own all the same.
    """
    if len(noise) == frames + WINDOW:
        return noise
    generator = torch.Generator().manual_seed(seed or 0)
    extra = torch.randn(frames + WINDOW, *noise.shape[1:], generator=generator)[frames:]
    return torch.cat([noise, extra.to(noise)])
