"""The native model and the guider with ComfyUI's own samplers, held to the golden sampling vectors."""

import dataclasses
import importlib
import json
import math

import pytest
import torch
from project import GOLDEN
from safetensors.torch import load_file

LATENT_SCALE = 0.18215


class Case:
    """A golden sampling case: config, tensors, and a ModelPatcher of ComfyUI's around the filled native model."""

    def __init__(self, pack, name, dtype=torch.float32):
        import comfy.model_patcher

        model, verify = (
            importlib.import_module(f"{pack.__name__}.{m}") for m in ("nodes.sampling.model", "dicetalk.measure.verify")
        )
        self.config = json.loads((GOLDEN / name / "case.json").read_text())["config"]
        self.tensors = load_file(GOLDEN / name / "tensors.safetensors")
        settings = model.DiceTalkModelConfig(dict(self.config["unet"]))
        settings.set_inference_dtype(dtype, None)
        native = settings.get_model({})
        verify.fill(native.diffusion_model, dtype=dtype)
        cpu = torch.device("cpu")
        self.patcher = comfy.model_patcher.ModelPatcher(native, cpu, cpu)
        self.pose_guider = verify.fill(
            importlib.import_module(f"{pack.__name__}.dicetalk").PoseGuider(**self.config["pose_guider"])
        )
        self.pack = pack

    def __getitem__(self, name):
        return self.tensors[name]

    @property
    def frames(self):
        return self.config["num_frames"]

    def conditions(self):
        kind = importlib.import_module(f"{self.pack.__name__}.dicetalk.sampling.conditions").Conditions
        names = "image_latent clip_embeds audio_tokens uncond_audio_tokens emotion_tokens uncond_emotion_tokens"
        inputs = {name: self[f"in.{name}"] for name in (*names.split(), "face_mask")}
        with torch.no_grad():
            return kind(**inputs, pose_features=self.pose_guider(self["in.face_mask"]))

    def guider(self, reference_scale=None, emotion_scale=None, patcher=None):
        kind = importlib.import_module(f"{self.pack.__name__}.nodes.sampling.guider").DiceTalkGuider
        reference_scale = self.config["ref_scale"] if reference_scale is None else reference_scale
        emotion_scale = self.config["emo_scale"] if emotion_scale is None else emotion_scale
        return kind(patcher or self.patcher, self.conditions(), reference_scale, emotion_scale)

    def sample(self, guider=None, sampler="euler", scheduler="karras", steps=None, noise=None, seed=0, **options):
        """(N, 4, h, w) in the scaled latent space."""
        import comfy.samplers

        guider = guider or self.guider()
        steps = steps or self.config["num_inference_steps"]
        model_sampling = guider.model_patcher.get_model_object("model_sampling")
        sigmas = comfy.samplers.calculate_sigmas(model_sampling, scheduler, steps)
        start = self["in.image_latent"].repeat(self.frames, 1, 1, 1)
        noise = self["in.noise"][0] if noise is None else noise
        method = comfy.samplers.sampler_object(sampler)
        with torch.inference_mode():
            samples = guider.sample(noise, start, method, sigmas, disable_pbar=True, seed=seed, **options)
        return samples * LATENT_SCALE


@pytest.fixture(scope="module")
def short(pack):
    return Case(pack, "sampling_short_7f")


@pytest.mark.parametrize("name", ["sampling_short_7f", "sampling_30f"])
def test_guider_with_euler_and_karras_reproduces_the_sampling_vectors(pack, name):
    # In float64: the small UNet's norms over two numbers multiply float32's rounding (see `dicetalk.measure.verify`).
    case = Case(pack, name, torch.float64)
    largest = (case.sample() - case["out.latents"][0]).abs().max()
    assert largest < 5e-3


def test_guider_and_pipeline_give_the_same_latents_for_the_same_noise(pack, short):
    from diffusers import EulerDiscreteScheduler

    loop, verify, model, settings = (
        importlib.import_module(f"{pack.__name__}.dicetalk.{name}")
        for name in ("sampling.loop", "measure.verify", "model.unet", "model.settings")
    )
    unet = verify.fill(model.DiceTalkUNet(**short.config["unet"]))
    noise = torch.randn(short.frames + 25, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    scheduler = EulerDiscreteScheduler.from_config(settings.SCHEDULER_CONFIG)
    with torch.no_grad():
        pipeline = loop.sample(unet, short.conditions(), noise, scheduler, 3, 1.5, 2.0)
    assert (short.sample(noise=noise) - pipeline).abs().max() < 5e-3


def test_guider_and_pipeline_agree_on_a_video_in_the_portraits_place(pack, short, monkeypatch):
    import comfy.samplers
    from diffusers import EulerDiscreteScheduler

    loop, verify, model, settings = (
        importlib.import_module(f"{pack.__name__}.dicetalk.{name}")
        for name in ("sampling.loop", "measure.verify", "model.unet", "model.settings")
    )
    random = torch.Generator().manual_seed(4)
    own = torch.randn(short.frames, 4, 8, 8, generator=random)
    noise = torch.randn(short.frames + 25, 4, 8, 8, generator=random)
    conditions = dataclasses.replace(short.conditions(), image_latent=own)
    monkeypatch.setattr(short, "conditions", lambda: conditions)
    unet = verify.fill(model.DiceTalkUNet(**short.config["unet"]))
    scheduler = EulerDiscreteScheduler.from_config(settings.SCHEDULER_CONFIG)
    with torch.no_grad():
        pipeline = loop.sample(unet, conditions, noise, scheduler, 3, 1.5, 2.0, denoise=0.5)
    guider = short.guider(1.5, 2.0)
    sigmas = comfy.samplers.KSampler(short.patcher, 3, torch.device("cpu"), "euler", "karras", denoise=0.5).sigmas
    with torch.inference_mode():
        euler = comfy.samplers.sampler_object("euler")
        latents = guider.sample(noise, own, euler, sigmas, disable_pbar=True, seed=0) * LATENT_SCALE
    assert (latents - pipeline).abs().max() < 5e-3
    assert (latents - own * LATENT_SCALE).abs().max() > 0.1


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m", "heun"])
def test_values_that_are_not_finite_are_one_error(short, monkeypatch, sampler):
    apply = short.patcher.model.apply_model
    monkeypatch.setattr(short.patcher.model, "apply_model", lambda *args, **kwargs: apply(*args, **kwargs) * math.nan)
    with pytest.raises(ValueError, match="Sampling gave values that are not finite .*weight_dtype .*reference_scale"):
        short.sample(sampler=sampler, steps=2)


def test_the_command_line_takes_the_scales_that_the_node_takes(pack):
    job, sampling = (
        importlib.import_module(f"{pack.__name__}.{m}") for m in ("dicetalk.job", "nodes.sampling.sampler")
    )
    inputs = {each.id: each for each in sampling.DiceTalkSampler.define_schema().inputs}
    for name in ("reference_scale", "emotion_scale"):
        assert (inputs[name].min, inputs[name].max) == (0, job.LARGEST_SCALE)


@pytest.mark.parametrize("scales, branches", [((1.0, 6.0), 2), ((3.0, 3.0), 2), ((1.0, 1.0), 1), ((3.0, 6.0), 3)])
def test_branches_that_have_no_part_are_not_computed(short, monkeypatch, scales, branches):
    batches = []
    apply = short.patcher.model.apply_model
    monkeypatch.setattr(
        short.patcher.model, "apply_model", lambda x, *a, **k: batches.append(len(x)) or apply(x, *a, **k)
    )
    short.sample(short.guider(*scales), steps=1)
    assert set(batches) == {25 * branches}


def test_guidance_outside_its_interval_computes_one_branch(short, monkeypatch):
    guider = short.guider()
    guider.guidance_interval = (1.0, 100.0)  # of the sigmas 700, 5.84 and 0.002, the middle one
    batches = []
    apply = short.patcher.model.apply_model
    monkeypatch.setattr(
        short.patcher.model, "apply_model", lambda x, *a, **k: batches.append(len(x)) or apply(x, *a, **k)
    )
    short.sample(guider, steps=3)
    assert batches == [25, 25, 75, 75, 25, 25]


def test_a_latent_of_another_length_or_size_is_refused(short):
    import comfy.samplers

    guider = short.guider()
    euler = comfy.samplers.sampler_object("euler")
    for shape, problem in (((5, 4, 8, 8), "holds 5 frames, the speech 7"), ((7, 4, 16, 8), "does not fit")):
        latent = torch.zeros(shape)
        with pytest.raises(ValueError, match=problem):
            guider.sample(latent, latent, euler, torch.tensor([1.0, 0.0]), seed=0)


def test_step_index(pack):
    step_index = importlib.import_module(f"{pack.__name__}.nodes.sampling.guider").step_index
    sigmas = [700.0, 70.0, 2.0, 0.0]
    found = [step_index(sigmas, sigma) for sigma in (900.0, 700.0, 100.0, 70.0, 69.99999, 3.0, 2.0, 0.1)]
    assert found == [0, 0, 0, 1, 1, 1, 2, 2]


def test_cancel_stops_within_one_window(short):
    import comfy.model_management

    calls = []

    class Cancelled(Exception):
        pass

    def interrupted():
        calls.append(1)
        if len(calls) == 2:
            raise Cancelled

    original = comfy.model_management.throw_exception_if_processing_interrupted
    comfy.model_management.throw_exception_if_processing_interrupted = interrupted
    try:
        with pytest.raises(Cancelled):
            short.sample(steps=3)
    finally:
        comfy.model_management.throw_exception_if_processing_interrupted = original
    assert len(calls) == 2
    assert torch.equal(short.sample(steps=1), short.sample(steps=1))
