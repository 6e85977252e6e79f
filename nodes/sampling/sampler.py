"""DICE-Talk Guider and DICE-Talk Sampler."""

import logging

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy_api.latest import io

from ...dicetalk.emotion.options import FPS
from ...dicetalk.emotion.timeline import EmotionTimeline, late_keys
from ...dicetalk.errors import InputError
from ...dicetalk.media.moving import fitted
from ...dicetalk.memory import require_memory
from ...dicetalk.model.settings import EMOTION_SCALE, EXPRESSION_BUCKET, MOTION_BUCKET, REFERENCE_SCALE
from ...dicetalk.sampling.conditions import STRONGEST, Conditions
from ...dicetalk.sampling.guidance import BRANCHES
from ...dicetalk.sampling.speed import ALIGN_YOUR_STEPS, MOST_SKIPPED, PUBLISHED, SPEEDS, Savings
from ...dicetalk.sampling.student import own_settings, student_text, unless_published
from ...dicetalk.sampling.windows import WINDOW
from ..checks import require_finite
from ..preview import all_shown
from ..progress import clip_of_list
from ..types import CLIP, Audio, DiceTalk, Emotion, Portrait

# Tensors of a clip's latents that sampling holds in main memory at one time, on the CPU and with a GPU; most of them
# are ComfyUI's own. A test counts them, the latter where there is a GPU.
COPIES, COPIES_BESIDE_GPU = 11, 5
STUDENT = "student"  # the noise levels of a student, where no other schedule is asked for
REUSE_COPIES = 3  # further ones when guidance is reused

PUBLISHED_WINDOWS = {
    "overlap": 0,
    "shift": 7,
    "motion_bucket": MOTION_BUCKET,
    "expression_bucket": EXPRESSION_BUCKET,
}


def _inputs():
    return [
        io.Model.Input("model", tooltip="From Load DICE-Talk; LoRA, compile and cache nodes may be in between."),
        DiceTalk.Input("dicetalk", tooltip="From Load DICE-Talk."),
        Portrait.Input("portrait", tooltip="From DICE-Talk Portrait."),
        Audio.Input("audio_features", tooltip="From DICE-Talk Audio Features; gives the number of frames."),
        Emotion.Input("emotion", tooltip="From DICE-Talk Emotion or another emotion node."),
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
            tooltip="Guidance: how far the frames go beyond what the model draws without speech and emotion. For one "
            "of the two alone, see speech_strength and emotion_strength.",
        ),
    ]


def _window_inputs():
    return [
        io.Int.Input(
            "overlap",
            default=0,
            min=0,
            max=24,
            advanced=True,
            tooltip="Frames that neighbouring windows of 25 share. 0 as published; more costs time.",
        ),
        io.Int.Input(
            "shift",
            default=7,
            min=0,
            max=24,
            advanced=True,
            tooltip="Frames by which the windows move each step, so that no seam stays in place. 7 as published.",
        ),
        io.Int.Input(
            "motion_bucket",
            default=MOTION_BUCKET,
            min=0,
            max=255,
            advanced=True,
            tooltip="Amount of head motion, 8 as published.",
        ),
        io.Int.Input(
            "expression_bucket",
            default=EXPRESSION_BUCKET,
            min=0,
            max=255,
            advanced=True,
            tooltip="Amount of facial motion, 16 as published.",
        ),
        io.Float.Input(
            "guidance_from",
            default=1000.0,
            min=0.0,
            max=1000.0,
            step=0.1,
            optional=True,
            advanced=True,
            tooltip="Guide only from this sigma down. Steps above it compute one branch instead of three, which is "
            "faster and less faithful: from 100 on, 25 steps take 81 % of the time, and an untrained test model's "
            "frames moved by 0.7 %. 1000 guides from the start, as published.",
        ),
        io.Float.Input(
            "guidance_to",
            default=0.0,
            min=0.0,
            max=1000.0,
            step=0.001,
            optional=True,
            advanced=True,
            tooltip="Guide only down to this sigma. Steps below it compute one branch instead of three: down to 0.5, "
            "25 steps take 84 % of the time, and an untrained test model's frames moved by 17 %. 0 guides to the end, "
            "as published.",
        ),
        io.Boolean.Input(
            "smaller_windows",
            default=False,
            optional=True,
            advanced=True,
            tooltip="When memory is too small even for one branch at a time, use windows of 13, 7 or 4 "
            "frames instead of 25, which changes the result. Off, that is an error.",
        ),
        io.Float.Input(
            "speech_strength",
            default=1.0,
            min=0.0,
            max=STRONGEST,
            step=0.05,
            optional=True,
            advanced=True,
            tooltip="How much the speech adds inside the model, apart from guidance: the lips move more or less. 1 as "
            "published.",
        ),
        io.Float.Input(
            "emotion_strength",
            default=1.0,
            min=0.0,
            max=STRONGEST,
            step=0.05,
            optional=True,
            advanced=True,
            tooltip="How much the emotion adds inside the model, apart from guidance: the expression is stronger or "
            "weaker while the speech stays. 1 as published.",
        ),
        io.Int.Input(
            "guidance_reuse",
            default=1,
            min=1,
            max=MOST_SKIPPED,
            optional=True,
            advanced=True,
            tooltip="Compute guidance at every so many steps, and add the same again at those between, which compute "
            "one branch instead of three. The first two steps are always whole. 1 computes it at every step, as "
            "published.",
        ),
        io.Int.Input(
            "deep_cache",
            default=1,
            min=1,
            max=MOST_SKIPPED,
            optional=True,
            advanced=True,
            tooltip="Compute the inner levels of the UNet at every so many steps, and reuse them at those between "
            "(DeepCache). Needs 5 MB a frame and branch at 512 pixels. 1 computes them at every step, as published.",
        ),
        io.Boolean.Input(
            "clamp_windows",
            default=False,
            optional=True,
            advanced=True,
            tooltip="End the windows where the clip does, so that no frames are computed behind it: half of the work "
            "for a clip of 3 seconds, a sixth for 10. Off as published.",
        ),
    ]


def _meter_input():
    return io.Boolean.Input(
        "meter",
        default=False,
        optional=True,
        advanced=True,
        tooltip="Show what emotion the network's own classifier reads while it samples, in a chart beside the preview, "
        "and in the finished clip. The frames stay the same. For each checkpoint `python -m dicetalk emotion classes` "
        "is needed once.",
    )


def make_guider(
    model,
    dicetalk,
    portrait,
    audio_features,
    emotion,
    reference_scale,
    emotion_scale,
    overlap,
    shift,
    motion_bucket,
    expression_bucket,
    guidance_from=1000.0,
    guidance_to=0.0,
    smaller_windows=False,
    speech_strength=1.0,
    emotion_strength=1.0,
    guidance_reuse=1,
    deep_cache=1,
    clamp_windows=False,
    meter=False,
):
    """The guider, and the LATENT to start from: the portrait's once per frame, or a video's, (frames, 4, h, w)."""
    from .guider import DiceTalkGuider as Guider  # diffusers is slow to import: only when first used

    require_finite(
        reference_scale=reference_scale,
        emotion_scale=emotion_scale,
        guidance_from=guidance_from,
        guidance_to=guidance_to,
        speech_strength=speech_strength,
        emotion_strength=emotion_strength,
    )
    _require_width(model, portrait.clip_embeds)
    frames = len(audio_features.tokens)
    reading = _reading(dicetalk, emotion, frames) if meter else {}
    latent = portrait.latent if len(portrait.latent) == 1 else fitted(portrait.latent, frames)
    savings = Savings(guidance_reuse, deep_cache, clamp_windows)
    _require_memory(model, frames, latent[:1], audio_features.tokens[:1], emotion, savings)
    for note in late_keys(emotion, frames / FPS):
        logging.warning("DICE-Talk: %s", note)
    told, untold = dicetalk.emotion_tokens(emotion, frames)
    conditions = Conditions(
        image_latent=latent,
        clip_embeds=portrait.clip_embeds,
        audio_tokens=audio_features.tokens,
        uncond_audio_tokens=audio_features.unconditional,
        emotion_tokens=told,
        uncond_emotion_tokens=untold,
        face_mask=portrait.face_mask,
        pose_features=dicetalk.pose_features(portrait.face_mask),
        motion_bucket_id=motion_bucket,
        expression_bucket_id=expression_bucket,
        speech_strength=speech_strength,
        emotion_strength=emotion_strength,
    )
    if guidance_to > guidance_from:
        raise InputError(f"guidance_to is {guidance_to:g}, above guidance_from, {guidance_from:g}: sigmas fall.")
    interval = (guidance_to, guidance_from)
    scales = reference_scale, emotion_scale
    guider = Guider(model, conditions, *scales, overlap, shift, interval, smaller_windows, savings, **reading)
    return guider, {"samples": latent.repeat(frames // len(latent), 1, 1, 1)}


def _reading(dicetalk, emotion, frames):
    """The guider's arguments for a meter; InputError where the checkpoint's classifier cannot be one."""
    from ...dicetalk.sampling.meter import Meter, asked_shares

    if "neutral" not in dicetalk.priors:
        raise InputError("The checkpoint's priors lack neutral, from which the meter measures: switch off meter.")
    return {"meter": Meter.of(dicetalk.checkpoint), "asked": asked_shares(emotion, dicetalk.priors, frames)}


def _require_width(model, embeds):
    """InputError unless the portrait's CLIP embedding is as wide as the model takes it."""
    config = getattr(model.model.diffusion_model, "config", {})
    width = config.get("cross_attention_dim", embeds.shape[-1])
    if embeds.shape[-1] != width:
        raise InputError(
            f"clip_vision gives embeddings {embeds.shape[-1]} wide instead of {width}: it is another model's. Connect "
            "to DICE-Talk Portrait the clip_vision of the same Load DICE-Talk."
        )


def _require_memory(model, frames, latent, tokens, emotion, savings):
    """InputError unless there is memory for the clip's latents, and a timeline's tokens; a GPU's are not counted.

    Args:
        latent, tokens: of one frame, (1, 4, h, w) and (1, tokens, dim).
    """
    computing = comfy.model_management.is_device_cpu(model.load_device)
    each = (COPIES if computing else COPIES_BESIDE_GPU) * latent.numel() * 4
    if computing:
        each += REUSE_COPIES * (savings.guidance_reuse > 1) * latent.numel() * 4
        if savings.deep_cache > 1:
            each += len(BRANCHES) * model.model.diffusion_model.deep_channels * latent[0, 0].numel() * 4
    if isinstance(emotion, EmotionTimeline):
        each += tokens.numel() * 4
    require_memory(
        "audio_features",
        frames,
        each,
        comfy.model_management.get_free_memory(torch.device("cpu")),
        lambda seconds: (
            f"set length of DICE-Talk Audio Features to {seconds} s at most, or short_side of DICE-Talk Portrait lower"
        ),
    )


def _student(model):
    """How a MODEL's checkpoint is sampled if it is a student, else None; what is no MODEL at all is refused later."""
    return getattr(getattr(model, "model", None), "student", None)


def _as_student(model, **chosen):
    """What was chosen, or a student's own where it is the published value; says so in the log."""
    student, chosen = _student(model), unless_published(chosen)
    if student is not None:
        say = {"sampler": "sampler_name"}
        logging.info(student_text(student, chosen, lambda name: say.get(name, name)))
    return own_settings(student, chosen)


def _library_noise(seed, guider, start):
    """The noise of lcm's steps, as the library draws it: on the CPU, whatever the device."""
    from ...dicetalk.sampling.schedules import fresh_noise  # diffusers is slow to import: only when first used

    generator, device = fresh_noise(seed), guider.model_patcher.load_device
    shape = len(start) + guider.savings.extra_frames(WINDOW), *start.shape[1:]
    return lambda sigma, sigma_next: torch.randn(shape, generator=generator).to(device)


def _sigmas(model, steps, sampler_name, scheduler, denoise):
    if scheduler in (ALIGN_YOUR_STEPS, STUDENT):
        # diffusers is slow to import: only when first used
        from ...dicetalk.sampling.schedules import sigmas_of, student_sigmas

        if scheduler == STUDENT:
            return torch.tensor(student_sigmas(int(steps / denoise))[-steps - 1 :])
        return torch.tensor(sigmas_of(scheduler, int(steps / denoise))[-steps - 1 :])
    # KSampler's, which leaves out the last but one for the samplers that end better without it.
    return comfy.samplers.KSampler(model, steps, model.load_device, sampler_name, scheduler, denoise=denoise).sigmas


class DiceTalkGuider(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DiceTalkGuider",
            display_name="DICE-Talk Guider",
            category="DICE-Talk/sampling",
            description="Three-way guidance over sliding windows as a GUIDER for SamplerCustomAdvanced, with any "
            "sampler, sigmas and noise.",
            search_aliases=["guider", "talking head", "lip sync"],
            inputs=[*_inputs(), *_window_inputs(), _meter_input()],
            outputs=[
                io.Guider.Output(display_name="guider", tooltip="For SamplerCustomAdvanced."),
                io.Latent.Output(display_name="latent", tooltip="Where sampling starts: the portrait, once per frame."),
            ],
        )

    @classmethod
    def execute(cls, **inputs) -> io.NodeOutput:
        scales = {name: inputs[name] for name in ("reference_scale", "emotion_scale")}
        return io.NodeOutput(*make_guider(**inputs | _as_student(inputs["model"], **scales)))


class DiceTalkSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DiceTalkSampler",
            display_name="DICE-Talk Sampler",
            category="DICE-Talk/sampling",
            description="Makes the portrait talk: portrait, speech and emotion in, the LATENT of a video of 12.5 "
            "frames a second out. DICE-Talk Video makes a video of it; VAE Decode gives its frames.",
            search_aliases=[
                *("talking head", "lip sync", "avatar", "portrait animation", "emotion", "dice talk"),
                *("face animation", "audio driven"),
            ],
            inputs=[
                *_inputs(),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Another seed gives another video.",
                ),
                io.Int.Input("steps", default=25, min=1, max=1000, tooltip="Sampling steps; 25 as published."),
                io.Combo.Input(
                    "sampler_name",
                    options=comfy.samplers.SAMPLER_NAMES,
                    default="euler",
                    tooltip="Sampling method; euler as published.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=[*comfy.samplers.SCHEDULER_NAMES, ALIGN_YOUR_STEPS],
                    default="karras",
                    tooltip="How the noise levels are spaced; karras as published. align_your_steps is for about 10 "
                    "steps with dpmpp_2m.",
                ),
                *_window_inputs(),
                io.Combo.Input(
                    "speed",
                    options=list(SPEEDS),
                    default=PUBLISHED,
                    optional=True,
                    tooltip="published: as the other inputs say; but a student that the command distill made is "
                    "sampled by its own values wherever steps, sampler_name and the two scales are 25, euler, 3 and 6. "
                    "fast and draft compute a third and a fifth of the pictures, which changes the result: they set "
                    "steps, sampler_name, scheduler, guidance_from, guidance_to, guidance_reuse, deep_cache and "
                    "clamp_windows, whatever those say.",
                ),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="How much noise sampling starts with: 1 for a portrait. With a video from DICE-Talk "
                    "Re-act, 0.4 to 0.7 keep the head and the place; the less, the nearer to the video.",
                ),
                _meter_input(),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent",
                    tooltip="One frame per 80 ms; for DICE-Talk Video or VAE Decode.",
                    is_output_list=True,
                )
            ],
            is_input_list=True,  # so that it knows how many clips there are
        )

    @classmethod
    def execute(cls, **inputs) -> io.NodeOutput:
        total, latents, charts = max(map(len, inputs.values())), [], []
        for number in range(1, total + 1):
            given = {name: values[min(number, len(values)) - 1] for name, values in inputs.items()}
            clip = (number, total) if total > 1 else None
            with clip_of_list(clip):
                try:
                    samples, guider = _sampled(**given)
                except InputError as error:
                    if clip:
                        error.args = (f"clip {number} of {total}: {error}",)
                    raise
            latent = {"samples": samples}
            latents.append(latent | {CLIP: clip} if clip else latent)
            if given.get("meter"):
                charts.append(guider.chart())
        return io.NodeOutput(latents, ui=all_shown(charts, cls))


def sample(seed, steps, sampler_name, scheduler, **inputs):
    """The sampled latents (frames, 4, h, w) of one clip, unscaled; the inputs are those of DICE-Talk Sampler."""
    return _sampled(seed, steps, sampler_name, scheduler, **inputs)[0]


def _sampled(seed, steps, sampler_name, scheduler, speed=PUBLISHED, denoise=1.0, **inputs):
    """`sample`, and the guider that did it."""
    require_finite(denoise=denoise)
    if speed != PUBLISHED:
        chosen = dict(SPEEDS[speed])
        steps, sampler_name, scheduler = (chosen.pop(name) for name in ("steps", "sampler", "schedule"))
        inputs |= chosen
    model = inputs["model"]
    scales = {name: inputs[name] for name in ("reference_scale", "emotion_scale") if name in inputs}
    own = _as_student(model, steps=steps, sampler=sampler_name, **scales)
    steps, sampler_name = own.pop("steps"), own.pop("sampler")
    guider, latent = make_guider(**inputs | own)
    start = latent["samples"]
    sampler = comfy.samplers.sampler_object(sampler_name)
    if sampler_name == "lcm" and _student(model) is not None:
        sampler = comfy.samplers.ksampler("lcm", {"noise_sampler": _library_noise(seed, guider, start)})
        scheduler = STUDENT if scheduler == "karras" else scheduler
    sigmas = _sigmas(model, steps, sampler_name, scheduler, denoise)
    samples = guider.sample(
        comfy.sample.prepare_noise(start, seed),
        start,
        sampler,
        sigmas,
        callback=latent_preview.prepare_callback(model, len(sigmas) - 1),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    return samples.to(comfy.model_management.intermediate_device()), guider
