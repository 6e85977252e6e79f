"""The guider: three-way guidance over sliding windows, for any ComfyUI sampler, scheduler and noise."""

import math
import uuid

import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
import comfy.samplers
import torch

from ..dicetalk.errors import InputError
from ..dicetalk.sampling import BRANCHES, WINDOW, Conditions, guide, needed_branches, window_plan
from .model import DiceTalkModel, Shared

_SINGLE_EVALUATION = {"sample_euler", "sample_euler_ancestral", "sample_dpmpp_2m", "sample_ddpm", "sample_lcm"}


def step_index(sigmas, sigma):
    """The sampling step that an evaluation at `sigma` belongs to.

    Args:
        sigmas: the schedule, falling, its last entry the end.
        sigma: where the model is called; between two entries it belongs to the step that starts at the larger one.
    """
    reached = sum(1 for start in sigmas[:-1] if start >= sigma * (1 - 1e-5))
    return max(reached - 1, 0)


class DiceTalkGuider(comfy.samplers.CFGGuider):
    """GUIDER for a DICE-Talk MODEL.

    Latents go in and out with the N frames of the clip; one window more is sampled behind them and dropped, as
    published, so that the wrap-around of the windows does not join the last frame to the first.

    Args:
        model_patcher: a DICE-Talk MODEL.
        conditions: `dicetalk.sampling.Conditions` of the clip.
        reference_scale, emotion_scale: strengths of the two guidances.
        overlap, shift: of the windows, in frames.

    Raises:
        InputError: the MODEL is another kind of model.
    """

    def __init__(self, model_patcher, conditions: Conditions, reference_scale, emotion_scale, overlap=0, shift=7):
        if not isinstance(model_patcher.model, DiceTalkModel):
            kind = type(model_patcher.model).__name__
            raise InputError(f"The MODEL is a {kind}, not DICE-Talk's: connect the output of Load DICE-Talk.")
        super().__init__(model_patcher)
        self.conditions = conditions
        self.reference_scale, self.emotion_scale = reference_scale, emotion_scale
        self.overlap, self.shift = overlap, shift
        self.cfg = emotion_scale
        self.branches = needed_branches(reference_scale, emotion_scale)
        self.uuids = {branch: uuid.uuid4() for branch in BRANCHES}
        self.model_options = comfy.model_patcher.create_model_options_clone(self.model_options)
        comfy.patcher_extension.add_wrapper_with_key(
            comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING,
            "dicetalk_window",
            self._prepare_for_one_window,
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
        """
        frames = self.conditions.num_frames
        self._check_latent(latent_image, frames)
        portrait = self.conditions.image_latent.to(latent_image).expand(WINDOW, -1, -1, -1)
        if denoise_mask is not None and len(denoise_mask) == frames:
            denoise_mask = torch.cat([denoise_mask, torch.ones_like(denoise_mask[:1]).repeat_interleave(WINDOW, 0)])
        name = getattr(getattr(sampler, "sampler_function", None), "__name__", None)
        self._plan = window_plan(
            frames,
            max(len(sigmas) - 1, 1),
            overlap=self.overlap,
            shift=self.shift,
            single_evaluation=name in _SINGLE_EVALUATION,
        )

        def report(step, x0, x, total_steps):
            return callback(step, x0[:frames], x[:frames], total_steps)

        samples = super().sample(
            _with_extra_noise(noise, frames, seed),
            torch.cat([latent_image, portrait]),
            sampler,
            sigmas,
            denoise_mask,
            callback and report,
            disable_pbar,
            seed,
        )
        return samples[:frames]

    def predict_noise(self, x, timestep, model_options={}, seed=None):
        """The guided, denoised latents (N + 25, 4, h, w) at the sigmas `timestep` (N + 25,)."""
        sigmas = model_options["transformer_options"]["sample_sigmas"].tolist()
        plan = self._plan[min(step_index(sigmas, float(timestep[0])), len(self._plan) - 1)]
        denoised, count = torch.zeros_like(x), x.new_zeros(len(x), 1, 1, 1)
        for frames in plan:
            comfy.model_management.throw_exception_if_processing_interrupted()
            conds = [self._conds(branch, frames, x.device) for branch in self.branches]
            parts = comfy.samplers.calc_cond_batch(
                self.inner_model, conds, x[frames], timestep[frames], model_options
            )
            denoised[frames] += guide(dict(zip(self.branches, parts)), self.reference_scale, self.emotion_scale)
            count[frames] += 1
        return denoised / count.clamp(min=1)

    def inner_sample(self, noise, latent_image, device, *args, **kwargs):
        features, mask = self.conditions.pose_features[:, None], self.conditions.face_mask
        self._shared = {"pose_features": Shared(features.to(device)), "face_mask": Shared(mask.to(device))}
        try:
            return super().inner_sample(noise, latent_image, device, *args, **kwargs)
        finally:
            del self._shared

    def _conds(self, branch, frames, device):
        conds = self.inner_model.window_conds(self.conditions, branch, frames)
        for cond in conds.values():
            cond.cond = cond.cond.to(device)
        return [{"model_conds": conds | self._shared, "uuid": self.uuids[branch]}]

    def _prepare_for_one_window(self, executor, model, noise_shape, conds, *args, **kwargs):
        """ComfyUI plans memory for twice the batch it is given; what runs at once is the branches of one window."""
        batch = math.ceil(WINDOW * len(self.branches) / 2)
        return executor(model, [batch, *noise_shape[1:]], conds, *args, **kwargs)

    def _check_latent(self, latent, frames):
        portrait = self.conditions.image_latent
        if latent.ndim != 4 or latent.shape[1:] != portrait.shape[1:]:
            raise InputError(
                f"The LATENT's shape {tuple(latent.shape)} does not fit the portrait's {tuple(portrait.shape[1:])}: "
                "use the LATENT that the guider gives, or encode video of the portrait's size."
            )
        if len(latent) != frames:
            raise InputError(f"The LATENT holds {len(latent)} frames, the speech {frames}: make them equal.")


def _with_extra_noise(noise, frames, seed):
    """Noise for one window more; it continues what ComfyUI drew for this seed, and is zero where noise is off."""
    if len(noise) == frames + WINDOW:
        return noise
    extra = torch.zeros(WINDOW, *noise.shape[1:])
    if noise.any():
        generator = torch.Generator().manual_seed(seed or 0)
        extra = torch.randn(frames + WINDOW, *noise.shape[1:], generator=generator)[frames:]
    return torch.cat([noise, extra.to(noise)])
