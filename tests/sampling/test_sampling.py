"""Window plan, guidance and conditions."""

from dataclasses import replace

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from dicetalk.errors import InputError
from dicetalk.model.settings import LATENT_SCALE, SCHEDULER_CONFIG
from dicetalk.sampling.conditions import Conditions
from dicetalk.sampling.guidance import (
    BRANCHES,
    CONDITIONAL,
    REFERENCE,
    UNCONDITIONAL,
    guide,
    needed_branches,
    scales_at,
)
from dicetalk.sampling.loop import sample
from dicetalk.sampling.windows import WINDOW, window_plan, windows


@settings(max_examples=60, deadline=None)
@given(frames=st.integers(1, 400), step=st.integers(0, 60), overlap=st.integers(0, 24))
def test_every_frame_is_in_some_window_at_every_step(frames, step, overlap):
    total = frames + WINDOW
    plan = windows(total, step, overlap=overlap)
    assert {frame for window in plan for frame in window} == set(range(total))
    assert all(len(set(window)) == WINDOW for window in plan)


def test_windows_shift_by_seven_and_wrap_around():
    assert [windows(55, step)[0][0] for step in range(5)] == [0, 48, 41, 34, 52]
    assert windows(55, 0)[2] == [*range(50, 55), *range(20)]


def reached_frames(plan, frames):
    """Frames whose value at the start some kept frame depends on, by brute force over the unpruned plan."""
    needed = set(range(frames))
    for row in reversed(plan):
        needed |= {f for window in row if needed & set(window) for f in window}
    return needed


@settings(max_examples=40, deadline=None)
@given(frames=st.integers(1, 120), steps=st.integers(1, 6), overlap=st.integers(0, 20))
def test_left_out_windows_touch_nothing_that_is_kept(frames, steps, overlap):
    pruned = window_plan(frames, steps, overlap=overlap)
    full = [windows(frames + WINDOW, step, overlap=overlap) for step in range(steps)]
    for step in range(steps):
        after = reached_frames(full[step + 1 :], frames)
        assert pruned[step] == [window for window in full[step] if after & set(window)]


def test_windows_that_reach_only_dropped_frames_are_left_out():
    assert window_plan(75, 1)[0] == windows(100, 0)[:3]
    assert [len(row) for row in window_plan(7, 25)] == [2] * 24 + [1]


@given(
    reference=st.floats(0, 10, allow_nan=False).map(lambda x: round(x, 1)),
    emotion=st.floats(0, 10, allow_nan=False).map(lambda x: round(x, 1)),
)
def test_guidance_without_the_branches_that_have_no_part_is_the_same(reference, emotion):
    parts = {branch: torch.randn(4, dtype=torch.float64) for branch in BRANCHES}
    u, r, c = parts.values()
    expected = u + reference * (r - u) + emotion * (c - r)
    kept = {branch: parts[branch] for branch in needed_branches(reference, emotion)}
    assert torch.allclose(guide(kept, reference, emotion), expected, atol=1e-9)


def test_needed_branches():
    assert needed_branches(3, 6) == BRANCHES
    assert needed_branches(1, 6) == (REFERENCE, CONDITIONAL)
    assert needed_branches(4, 4) == (UNCONDITIONAL, CONDITIONAL)
    assert needed_branches(1, 1) == (CONDITIONAL,)
    assert needed_branches(3, 0) == (UNCONDITIONAL, REFERENCE)


def test_guidance_acts_inside_its_interval_only():
    assert scales_at(5.0, 3.0, 6.0, None) == scales_at(5.0, 3.0, 6.0, (1.0, 5.0)) == (3.0, 6.0)
    assert scales_at(0.9, 3.0, 6.0, (1.0, 5.0)) == scales_at(5.1, 3.0, 6.0, (1.0, 5.0)) == (1.0, 1.0)


@pytest.fixture
def conditions():
    def numbered(*shape):
        return torch.arange(shape[0], dtype=torch.float32).view(-1, 1, 1).expand(shape) + 1

    return Conditions(
        image_latent=torch.ones(1, 4, 2, 2),
        clip_embeds=torch.ones(1, 8),
        audio_tokens=numbered(3, 2, 8),
        uncond_audio_tokens=torch.full((1, 2, 8), -1.0),
        emotion_tokens=torch.full((1, 2, 8), 5.0),
        uncond_emotion_tokens=torch.full((1, 2, 8), -5.0),
        face_mask=torch.ones(1, 1, 16, 16),
        pose_features=torch.ones(1, 4, 2, 2),
    )


def test_branches_are_told_what_they_may_know(conditions):
    frames = [2, 3, 4, 0]  # two of them behind the clip's end
    unconditional, reference, conditional = (conditions.branch(name, frames) for name in BRANCHES)
    assert unconditional["concat_latent"].sum() == unconditional["clip_embeds"].sum() == 0
    assert reference["concat_latent"].all() and reference["clip_embeds"].all()
    assert unconditional["audio_tokens"][0, :, 0, 0].tolist() == [-1, -1, -1, -1]
    assert conditional["audio_tokens"][0, :, 0, 0].tolist() == [3, -1, -1, 1]
    assert conditional["emotion_tokens"][0, :, 0, 0].tolist() == [5, -5, -5, 5]
    assert conditional["added_time_ids"].tolist() == [[12.5, 8, 16]]
    shapes = [{name: tensor.shape for name, tensor in branch.items()} for branch in (unconditional, conditional)]
    assert shapes[0] == shapes[1]


def test_a_constant_emotion_is_computed_once_for_a_window(conditions):
    assert conditions.branch(CONDITIONAL, [0, 1, 2])["emotion_tokens"].shape == (1, 1, 2, 8)


def test_each_frame_has_its_own_latent_where_a_video_takes_the_portraits_place(conditions):
    own = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 4, 2, 2) + 1
    moving = replace(conditions, image_latent=own)
    frames = [2, 3, 4, 0]  # two of them behind the clip's end, where its last frame stays
    unconditional, reference, conditional = (moving.branch(name, frames)["concat_latent"] for name in BRANCHES)
    assert reference[0, :, 0, 0, 0].tolist() == conditional[0, :, 0, 0, 0].tolist() == [3, 3, 3, 1]
    assert unconditional.shape == reference.shape and unconditional.sum() == 0
    with pytest.raises(InputError, match="image_latent holds 2 frames, the speech 3"):
        replace(conditions, image_latent=own[:2])


class PortraitDrawer:
    """Stands for the UNet: at any noise it sees the picture whose latent is concatenated, and notes the timesteps."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self):
        self.timesteps = []

    def __call__(self, sample, timestep, **inputs):
        self.timesteps.append(float(timestep))
        sigma = (timestep * 4).exp()
        noisy, clean = sample[:, :, :4] * (sigma**2 + 1) ** 0.5, sample[:, :, 4:] * LATENT_SCALE
        # v-prediction: clean = noisy / (sigma² + 1) - v sigma / sqrt(sigma² + 1)
        return ((noisy / (sigma**2 + 1) - clean) * (sigma**2 + 1) ** 0.5 / sigma,)


@pytest.mark.parametrize("denoise", [1.0, 0.5])
def test_a_videos_frames_reach_the_network_in_their_places(conditions, denoise):
    count = 40  # in several windows, which wrap round
    own = torch.randn(count, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    moving = replace(conditions, image_latent=own, audio_tokens=conditions.audio_tokens[:1].expand(count, -1, -1))
    scheduler, noise = EulerDiscreteScheduler.from_config(SCHEDULER_CONFIG), torch.randn(count + WINDOW, 4, 2, 2)
    latents = sample(PortraitDrawer(), moving, noise, scheduler, 4, 1.0, 1.0, denoise=denoise)
    assert (latents - own * LATENT_SCALE).abs().max() < 0.01


def test_less_noise_takes_the_last_steps_of_more(conditions):
    scheduler, steps = EulerDiscreteScheduler.from_config(SCHEDULER_CONFIG), 3

    def timesteps(denoise, start=None):
        drawer = PortraitDrawer()
        sample(
            drawer,
            conditions,
            torch.zeros(3 + WINDOW, 4, 2, 2),
            scheduler,
            steps,
            1.0,
            1.0,
            denoise=denoise,
            start=start,
        )
        return list(dict.fromkeys(drawer.timesteps))

    scheduler.set_timesteps(6)
    assert timesteps(0.5) == scheduler.timesteps[3:].tolist()
    scheduler.set_timesteps(6)
    assert timesteps(0.5, (2, torch.zeros(3 + WINDOW, 4, 2, 2))) == scheduler.timesteps[5:].tolist()
    scheduler.set_timesteps(3)
    assert timesteps(1.0) == scheduler.timesteps.tolist()
