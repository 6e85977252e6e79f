"""What sampling may leave out: neutral it is the published result, and chosen it is what it says."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dicetalk.errors import InputError
from dicetalk.sampling.conditions import Conditions
from dicetalk.sampling.loop import sample
from dicetalk.sampling.reuse import DeepCache
from dicetalk.sampling.schedules import make_scheduler, sigmas_of
from dicetalk.sampling.speed import NOTHING, Savings, whole_step
from dicetalk.sampling.windows import WINDOW, clamped_windows

WIDTH = 8


class FakeUNet:
    """Any function of its inputs, which notes what it was asked for; the inner levels are a mean."""

    dtype, device, deep_channels = torch.float32, torch.device("cpu"), 2

    def __init__(self):
        self.pictures, self.shallow = 0, 0

    def __call__(self, sample, timestep, audio_tokens, emotion_tokens, deep=None, deep_out=None, **inputs):
        batch, frames = sample.shape[:2]
        self.pictures += batch * frames
        if deep is None:
            inner = (sample.mean(dim=(1, 2)) + timestep).repeat_interleave(frames, 0)[:, None].repeat(1, 2, 1, 1)
            if deep_out is not None:
                deep_out.copy_(inner)
        else:
            self.shallow += batch * frames
            inner = deep
        heard = audio_tokens.mean(dim=(2, 3)) + emotion_tokens.mean(dim=(1, 2, 3))[:, None]
        out = torch.tanh(sample[:, :, :4] + sample[:, :, 4:] + heard[..., None, None, None])
        return (out + inner[:, :1].unflatten(0, (batch, frames)),)


@pytest.fixture
def conditions():
    return make_conditions(38)


def make_conditions(frames):
    random = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=random)

    return Conditions(
        image_latent=normal(1, 4, 2, 2),
        clip_embeds=normal(1, WIDTH),
        audio_tokens=normal(frames, 2, WIDTH),
        uncond_audio_tokens=normal(1, 2, WIDTH),
        emotion_tokens=normal(1, 2, WIDTH),
        uncond_emotion_tokens=normal(1, 2, WIDTH),
        face_mask=torch.ones(1, 1, 16, 16),
        pose_features=normal(1, 4, 2, 2),
    )


def run(conditions, savings=NOTHING, steps=6, sampler="euler", schedule="karras", **options):
    """The latents, and the UNet that made them."""
    unet = FakeUNet()
    noise = torch.randn(conditions.num_frames + WINDOW, 4, 2, 2, generator=torch.Generator().manual_seed(1))
    sigmas = sigmas_of(schedule, steps)
    latents = sample(unet, conditions, noise, make_scheduler(sampler), steps, savings=savings, sigmas=sigmas, **options)
    return latents, unet


def test_at_the_first_two_steps_nothing_is_left_out():
    assert [whole_step(step, 1) for step in range(5)] == [True] * 5
    assert [step for step in range(10) if whole_step(step, 2)] == [0, 1, 3, 5, 7, 9]
    assert [step for step in range(8) if whole_step(step, 3)] == [0, 1, 4, 7]


@pytest.mark.parametrize("name", ["guidance_reuse", "deep_cache"])
@pytest.mark.parametrize("value", [0, 11, 1.5])
def test_numbers_that_cannot_be_meant(name, value):
    with pytest.raises(InputError, match=f"{name} is {value}"):
        Savings(**{name: value})


def test_between_its_steps_guidance_computes_one_branch(conditions):
    _, plain = run(conditions)
    _, reused = run(conditions, Savings(guidance_reuse=2))
    assert plain.pictures == 3 * 6 * 3 * WINDOW  # windows, steps, branches
    assert reused.pictures == (4 * 3 + 2) * 3 * WINDOW


def test_guidance_that_does_not_change_may_be_reused(conditions, monkeypatch):
    """Where the branches differ by a constant, what was added at one step is right at any other."""
    monkeypatch.setattr(
        FakeUNet,
        "__call__",
        lambda self, sample, timestep, audio_tokens, emotion_tokens, **inputs: (
            torch.tanh(sample[:, :, :4]) + audio_tokens.mean(dim=(2, 3))[..., None, None, None],
        ),
    )
    plain, reused = (run(conditions, Savings(guidance_reuse=every))[0] for every in (1, 3))
    assert torch.allclose(plain, reused, atol=1e-4)
    assert not torch.equal(plain, run(conditions, reference_scale=1, emotion_scale=1)[0])


@pytest.mark.parametrize("scales", [(3.0, 6.0), (1.0, 6.0), (4.0, 4.0), (3.0, 0.0), (1.0, 1.0)])
def test_guidance_may_lack_a_branch(conditions, scales):
    options = {"reference_scale": scales[0], "emotion_scale": scales[1]}
    plain, all_of_it = run(conditions, **options)
    reused, unet = run(conditions, Savings(guidance_reuse=2), **options)
    assert reused.isfinite().all()
    if scales == (1.0, 1.0):
        assert torch.equal(plain, reused) and unet.pictures == all_of_it.pictures
    else:
        assert not torch.equal(plain, reused) and unet.pictures < all_of_it.pictures


def test_guidance_in_an_interval_is_computed_before_it_is_reused(conditions):
    _, unet = run(conditions, Savings(guidance_reuse=3), guidance_interval=(0.0, 100.0))
    guided = [sigma for sigma in make_sigmas(6) if sigma <= 100]
    first = 6 - len(guided)
    whole = [step for step in range(first, 6) if step == first or whole_step(step, 3)]
    assert first >= 1 and unet.pictures == (6 + 2 * len(whole)) * 3 * WINDOW


def make_sigmas(steps):
    scheduler = make_scheduler("euler")
    scheduler.set_timesteps(steps)
    return scheduler.sigmas[:-1].tolist()


def test_inner_levels_are_kept_by_frame(conditions):
    _, unet = run(conditions, Savings(deep_cache=2))
    assert unet.shallow == 2 * 3 * 3 * WINDOW and unet.pictures == 6 * 3 * 3 * WINDOW


def test_features_come_back_for_the_frames_that_they_are_of():
    cache = DeepCache(2, frames=6, free=lambda device: None)
    features = torch.arange(8.0).reshape(8, 1, 1, 1)
    cache.put([(branch, frame) for branch in "ab" for frame in (4, 5, 0, 1)], features)
    assert cache.get(1, [("a", 0)], "cpu") is None  # a whole step
    assert cache.get(2, [("a", 2)], "cpu") is None  # not known yet
    assert cache.get(2, [("c", 0)], "cpu") is None
    assert cache.get(2, [("b", 1), ("b", 4), ("a", 0)], "cpu").flatten().tolist() == [7, 4, 2]


def test_features_that_would_fill_the_device_stay_in_main_memory():
    device = torch.device("meta")
    for free, place in ((3 * 6 * 4 * 2 + 1, "meta"), (3 * 6 * 4 * 2, "cpu")):
        cache = DeepCache(2, frames=6, free=lambda device, free=free: free)
        cache._features["a"] = cache._room(torch.empty(2, 1, 1, 1, device=device))
        assert cache._features["a"].device.type == place


@given(frames=st.integers(1, 300), step=st.integers(0, 60), overlap=st.integers(0, 12), window=st.integers(4, 25))
def test_clamped_windows_cover_the_clip_and_nothing_else(frames, step, overlap, window):
    overlap = min(overlap, window // 2)
    plan = clamped_windows(frames, step, window, overlap)
    assert {frame for row in plan for frame in row} == set(range(frames))
    assert all(row == list(range(row[0], row[-1] + 1)) and len(row) <= window for row in plan)
    assert plan == sorted(plan)
    assert len(plan) == 1 or all(3 * len(row) >= window - 2 for row in plan)
    if overlap == 0:
        assert sum(map(len, plan)) == frames


def test_clamped_windows_move():
    edges = {clamped_windows(125, step)[1][0] for step in range(25)}
    assert len(edges) > 10


def test_a_clamped_clip_computes_its_own_frames_alone(conditions):
    _, plain = run(conditions, steps=25)
    latents, unet = run(conditions, Savings(clamp_windows=True), steps=25)
    assert len(latents) == 38 and unet.pictures == 25 * 3 * 38
    assert unet.pictures <= 0.55 * plain.pictures


def test_a_clamped_clip_starts_from_the_noise_of_its_seed(monkeypatch):
    seen, predict = [], FakeUNet.__call__

    def noted(self, sample, *args, **inputs):
        seen.append(sample[0, :20])
        return predict(self, sample, *args, **inputs)

    monkeypatch.setattr(FakeUNet, "__call__", noted)
    latents, _ = run(make_conditions(20), Savings(clamp_windows=True), steps=1)
    run(make_conditions(20), steps=1)
    clamped, published, *_ = seen
    assert len(latents) == len(clamped) == 20 and torch.equal(clamped, published)


def test_align_your_steps_has_the_levels_of_its_authors():
    levels = sigmas_of("align_your_steps", 10)
    assert levels == pytest.approx([700, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0])
    between = sigmas_of("align_your_steps", 20)
    assert between[1] == pytest.approx(math.sqrt(700 * 54.5)) and len(between) == 21 and between[-1] == 0
    assert sigmas_of("karras", 10) is None


def test_unknown_samplers_and_schedules():
    with pytest.raises(InputError, match="sampler is 'heun'"):
        make_scheduler("heun")
    with pytest.raises(InputError, match="schedule is 'simple'"):
        sigmas_of("simple", 10)


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
def test_both_samplers_solve_the_same_equation(conditions, sampler):
    fine, coarse, other = (
        run(conditions, Savings(clamp_windows=True), steps, sampler, shift=0)[0] for steps in (400, 100, 4)
    )
    euler = run(conditions, Savings(clamp_windows=True), 400, "euler", shift=0)[0]
    assert (fine - euler).abs().mean() < 0.1 * (other - euler).abs().mean()
    assert (fine - coarse).abs().mean() < (fine - other).abs().mean()


@pytest.mark.parametrize(
    "savings, options",
    [
        (Savings(), {"sampler": "dpmpp_2m", "schedule": "align_your_steps"}),
        (Savings(guidance_reuse=3), {}),
        (Savings(guidance_reuse=2, clamp_windows=True), {"sampler": "dpmpp_2m"}),
    ],
)
@pytest.mark.parametrize("done", [1, 2, 3, 5])
def test_it_resumes_as_if_never_interrupted(conditions, savings, options, done):
    states = {}

    def on_step(step, timestep, latents, carried):
        states[step + 1] = latents.clone(), {name: tensor.clone() for name, tensor in carried.items()}
        return latents

    whole, _ = run(conditions, savings, on_step=on_step, **options)
    resumed, _ = run(conditions, savings, start=(done, *states[done]), **options)
    assert torch.equal(whole, resumed)


def test_several_processes_cannot_share_inner_levels(monkeypatch):
    monkeypatch.setattr("dicetalk.sampling.loop.process", lambda: (0, 2))
    with pytest.raises(InputError, match="--deep-cache"):
        sample(unet=None, conditions=None, noise=None, scheduler=None, savings=Savings(deep_cache=2))
