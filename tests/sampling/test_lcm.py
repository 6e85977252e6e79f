"""The sampler of students, against its definition: denoise, and add fresh noise of the next level."""

import pytest
import torch

from dicetalk.checkpoints.student import Student
from dicetalk.model.settings import LATENT_SCALE
from dicetalk.sampling.conditions import Conditions
from dicetalk.sampling.loop import sample
from dicetalk.sampling.schedules import karras_sigmas, make_scheduler, student_sigmas
from dicetalk.sampling.speed import Savings
from dicetalk.sampling.student import PUBLISHED_SETTINGS, own_settings, student_text, unless_published


class FakeUNet:
    """Any function of its inputs, which counts its calls."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self):
        self.rows = []

    def __call__(self, given, timestep, audio_tokens, **_):
        self.rows.append(tuple(given.shape[:2]))
        return (
            torch.tanh(given[:, :, :4] + given[:, :, 4:] + timestep + audio_tokens.mean((2, 3))[..., None, None, None]),
        )


def make_conditions(frames):
    random = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=random)

    tokens = {"audio_tokens": normal(frames, 2, 8), "uncond_audio_tokens": normal(1, 2, 8)}
    tokens |= {"emotion_tokens": normal(1, 2, 8), "uncond_emotion_tokens": normal(1, 2, 8)}
    more = {"clip_embeds": normal(1, 8), "face_mask": torch.ones(1, 1, 16, 16), "pose_features": normal(1, 8, 2, 2)}
    return Conditions(image_latent=normal(1, 4, 2, 2), **tokens, **more)


def start_noise(frames):
    return torch.randn(frames, 4, 2, 2, generator=torch.Generator().manual_seed(7))


def test_the_levels_are_those_of_the_published_sampling():
    high, low = 700 ** (1 / 7), 0.002 ** (1 / 7)
    levels = [*((high + place / 24 * (low - high)) ** 7 for place in range(25)), 0]
    assert karras_sigmas(25) == pytest.approx(levels, rel=1e-5)
    assert student_sigmas(4) == pytest.approx([*(levels[place] for place in (0, 6, 12, 18)), 0], rel=1e-5)
    assert len(student_sigmas(8)) == 9 and student_sigmas(25) == karras_sigmas(25) and len(student_sigmas(40)) == 41


def test_a_step_denoises_and_adds_fresh_noise():
    conditions, noise = make_conditions(5), start_noise(30)
    unet = FakeUNet()
    made = sample(unet, conditions, noise, make_scheduler("lcm"), 4, 1, 1, savings=Savings(clamp_windows=True), seed=7)
    assert unet.rows == [(1, 5)] * 4, "one branch, one window, four passes"

    random, levels = torch.Generator().manual_seed(8), student_sigmas(4)
    portrait = conditions.image_latent
    latents = portrait * LATENT_SCALE + noise[:5] * levels[0]
    for sigma, following in zip(levels, levels[1:]):
        given = torch.cat([latents / (sigma**2 + 1) ** 0.5, portrait.expand(5, -1, -1, -1)], dim=1)[None]
        (v,) = FakeUNet()(given, 0.25 * torch.tensor(sigma).log(), conditions.audio_tokens[None])
        latents = latents / (sigma**2 + 1) - v[0] * sigma / (sigma**2 + 1) ** 0.5
        latents = latents + following * torch.randn(latents.shape, generator=random)
    # The last draw is multiplied by 0.
    assert torch.allclose(made, latents, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("denoise", [1.0, 0.5])
def test_windows_join_and_an_interrupted_run_resumes_to_the_same(denoise):
    conditions, noise, states = make_conditions(38), start_noise(63), []

    def run(**more):
        keep = lambda step, timestep, latents, carried: states.append((step + 1, latents.clone(), carried)) or latents  # noqa: E731
        unet = FakeUNet()
        given = {"seed": 7, "denoise": denoise, "on_step": keep, **more}
        return sample(unet, conditions, noise, make_scheduler("lcm"), 4, 1, 1, **given), unet.rows

    whole, rows = run()
    assert whole.shape == (38, 4, 2, 2) and set(rows) == {(1, 25)} and len(rows) > 8
    assert states[1][2] == {}
    resumed, fewer = run(start=states[1])
    assert torch.equal(resumed, whole) and len(fewer) < len(rows)
    assert not torch.allclose(run(seed=8)[0], whole)


def test_a_students_own_settings_take_the_place_of_what_nobody_chose():
    student, nothing = Student(4, 3.0, 6.0, "mine"), dict.fromkeys(PUBLISHED_SETTINGS)
    own = own_settings(student, nothing)
    assert own == {"steps": 4, "sampler": "lcm", "reference_scale": 1.0, "emotion_scale": 1.0}
    assert own_settings(None, nothing) == PUBLISHED_SETTINGS
    assert own_settings(student, PUBLISHED_SETTINGS) == PUBLISHED_SETTINGS, "what is chosen is obeyed"
    assert own_settings(student, unless_published(PUBLISHED_SETTINGS)) == own, "widgets always have a value"
    given = unless_published(PUBLISHED_SETTINGS | {"steps": 8, "emotion_scale": 2.0})
    assert own_settings(student, given) == own | {"steps": 8, "emotion_scale": 2.0}
    assert own_settings(student, own) == own
    text = student_text(student, given, lambda name: f"--{name}")
    assert text.startswith("The checkpoint is a student of mine: 4 steps of lcm") and "\n" not in text
    assert text.endswith("But as given: --steps 8, --emotion_scale 2.0.")
    assert "But" not in student_text(student, nothing)
