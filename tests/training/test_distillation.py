"""Distillation: what the student learns towards, what is drawn, and a student of a few steps that is then sampled."""

import json
from dataclasses import replace

import pytest
import torch
from prepared import CONFIG, priors
from torch import nn

from dicetalk.errors import InputError
from dicetalk.model.settings import LATENT_SCALE
from dicetalk.sampling.schedules import karras_sigmas
from dicetalk.training.dataset import PreparedClips, Record, write_shard
from dicetalk.training.distillation import Distillation, build_distillation, draw_item, pseudo_huber
from dicetalk.training.draw import collate
from dicetalk.training.losses import preconditioning
from dicetalk.training.network import Parts
from dicetalk.training.options import DistillationOptions
from dicetalk.training.parts import new_parts

accelerate = pytest.importorskip("accelerate")
pytest.importorskip("matplotlib")

from dicetalk.training.loop import train  # noqa: E402

QUICK = DistillationOptions(trains="all", steps=4, batch=2, frames=4, rate=1e-3, warm_up=1, ema=0.0)


def learned(own, copied=True):
    learning = {name: each for name, each in own.named_parameters() if each.requires_grad}
    return {name: each.detach().clone() for name, each in learning.items()} if copied else learning


# The target, where it is known


class Gaussian(nn.Module):
    """In the place of a UNet: the denoiser of latents that are normal with deviation 2, and with a mean of its own in
    each branch, which it knows by what it is given. Clean latents are (4 · noisy + σ² · mean) / (4 + σ²) then."""

    def __init__(self, **means):
        super().__init__()
        self.means, self.calls = means, []
        self.nothing = nn.Parameter(torch.zeros(()))

    def forward(self, given, noise_level, encoder_hidden_states, audio_tokens, emotion_tokens, **_):
        sigma = (4 * noise_level)[:, None, None, None, None].exp()
        scale = preconditioning(sigma)
        noisy = given[:, :, :4] / scale["in"]
        present = [bool(each.abs().max() > 0) for each in (given[:, :, 4:], encoder_hidden_states, audio_tokens)]
        told = bool(emotion_tokens.abs().max() > 0)
        branch = {(False, False, False, False): "u", (True, True, False, False): "r", (True,) * 4: "c"}[
            (*present, told)
        ]
        self.calls.append(branch)
        clean = (4 * noisy + sigma**2 * self.means[branch]) / (4 + sigma**2)
        return ((clean - scale["skip"] * noisy) / scale["out"] + self.nothing,)


class Tokens(nn.Module):
    """In the place of an emotion model or an audio projection: tokens that are zero for what is zero."""

    def tokens(self, z):
        return z[:, :1, None].expand(-1, 2, 3)

    def forward(self, audio):
        return audio.flatten(1)[:, :1, None].expand(-1, 2, 3)


def parts_of(unet):
    return {"unet": unet, "pose_guider": nn.Identity(), "audio_linear": Tokens(), "emo_model": Tokens()}


def test_the_target_is_the_students_answer_after_a_step_of_the_guided_teacher():
    options = DistillationOptions(reference_scale=3.0, emotion_scale=6.0)
    own = Distillation(**parts_of(Gaussian(c=5.0)), options=options)
    own.teacher = Parts(**parts_of(Gaussian(u=1.0, r=2.0, c=4.0)))
    level = torch.tensor([12, 24, 16])
    clean, noise = torch.ones(2, 3, 1, 4, 2, 2)
    batch = {"latents": clean, "noise": noise, "level": level, "z": torch.ones(3, 256), "clip": torch.ones(3, 3)}
    batch |= {"audio": torch.ones(3, 1, 10, 5, 3), "portrait": torch.ones(3, 4, 2, 2), "time_ids": torch.ones(3, 3)}
    batch |= {"face_mask": torch.ones(3, 1, 1, 1)}
    loss = own(batch)

    expected = []
    for sigma, following in zip(own.sigmas[level].double(), own.sigmas[level + 1].double()):
        noisy = 1 + sigma
        # The branches' shares: U 1 - 3, R 3 - 6, C 6; of their means 1, 2 and 4 that is 16.
        guided = (4 * noisy + sigma**2 * (-2 * 1 - 3 * 2 + 6 * 4)) / (4 + sigma**2)
        ahead = noisy + (following - sigma) * (noisy - guided) / sigma
        said = (4 * ahead + following**2 * 5) / (4 + following**2)
        answer = (4 * noisy + sigma**2 * 5) / (4 + sigma**2)
        difference = answer - (said if following > 0 else guided)
        expected.append(float((difference**2 + 1e-6).sqrt() - 1e-3))
    assert expected[0] > 0.1, "the levels are apart enough to see a mistake"
    assert float(loss[0].detach()) == pytest.approx(sum(expected) / 3, rel=1e-3)
    assert sorted(own.teacher.unet.calls) == ["c", "r", "u"] and own.unet.calls == ["c", "c"]
    loss[0].backward()
    assert own.unet.nothing.grad is not None and own.teacher.unet.nothing.grad is None


def test_a_student_that_knows_the_ends_of_the_teachers_paths_has_no_loss():
    """Of Gaussian latents around 0 the paths are known: latents of level σ end at their share 2 / sqrt(4 + σ²), but
    for what 25 Euler steps miss."""

    class Ends(Gaussian):
        def forward(self, given, noise_level, **_):
            sigma = (4 * noise_level)[:, None, None, None, None].exp()
            scale = preconditioning(sigma)
            noisy = given[:, :, :4] / scale["in"]
            return ((2 * noisy / (4 + sigma**2).sqrt() - scale["skip"] * noisy) / scale["out"],)

    batch = {"latents": torch.ones(25, 1, 4, 2, 2), "noise": torch.ones(25, 1, 4, 2, 2), "level": torch.arange(25)}
    batch |= {"z": torch.ones(25, 256), "clip": torch.ones(25, 3), "audio": torch.ones(25, 1, 10, 5, 3)}
    batch |= {"portrait": torch.ones(25, 4, 2, 2), "time_ids": torch.ones(25, 3), "face_mask": torch.ones(25, 1, 1, 1)}
    losses = {}
    for name, student in (("ends", Ends()), ("teacher", Gaussian(c=0.0))):
        own = Distillation(**parts_of(student), options=DistillationOptions(reference_scale=1.0, emotion_scale=1.0))
        own.teacher = Parts(**parts_of(Gaussian(c=0.0)))
        losses[name] = float(own(batch)[0].detach())
        assert own.teacher.unet.calls == ["c"], "scales of 1 need one branch alone"
    assert losses["ends"] < losses["teacher"] / 3


def test_a_student_learns_in_one_pass_what_the_teacher_makes_in_25():
    """It has a number for each level, which the noisy latents are multiplied by."""

    class Learner(nn.Module):
        def __init__(self, sigmas):
            super().__init__()
            self.sigmas, self.shares = sigmas, nn.Parameter(4 / (4 + sigmas**2))

        def forward(self, given, noise_level, **_):
            sigma = (4 * noise_level)[:, None, None, None, None].exp()
            scale = preconditioning(sigma)
            noisy = given[:, :, :4] / scale["in"]
            share = self.shares[(self.sigmas - sigma.flatten()[:, None]).abs().argmin(1)][:, None, None, None, None]
            return ((share * noisy - scale["skip"] * noisy) / scale["out"],)

    options = DistillationOptions(reference_scale=1.0, emotion_scale=1.0)
    levels = torch.tensor(karras_sigmas(25))
    own = Distillation(**parts_of(Learner(levels[:-1])), options=options)
    own.teacher = Parts(**parts_of(Gaussian(c=0.0)))
    optimizer = torch.optim.SGD([own.unet.shares], lr=1.0)
    random = torch.Generator().manual_seed(0)
    batch = {"level": torch.arange(25), "z": torch.ones(25, 256), "clip": torch.ones(25, 3)}
    batch |= {"audio": torch.ones(25, 1, 10, 5, 3), "portrait": torch.ones(25, 4, 2, 2)}
    batch |= {"time_ids": torch.ones(25, 3), "face_mask": torch.ones(25, 1, 1, 1)}
    ends = torch.ones(25)
    for level in reversed(range(25)):
        sigma, following = levels[level], levels[level + 1]
        shrunk = 1 + (following - sigma) * sigma / (4 + sigma**2)  # what one Euler step multiplies by
        ends[level] = shrunk * (ends[level + 1] if level < 24 else 1)
    assert (own.unet.shares / ends - 1).abs().max() > 0.9, "a single pass of the teacher is far from its 25"
    for step in range(400):
        latents, noise = (
            2 * torch.randn(25, 1, 4, 2, 2, generator=random),
            torch.randn(25, 1, 4, 2, 2, generator=random),
        )
        own(batch | {"latents": latents, "noise": noise})[0].backward()
        with torch.no_grad():  # levels differ by orders of magnitude in what a number does
            own.unet.shares.grad /= levels[:-1].square() + 4
        for group in optimizer.param_groups:
            group["lr"] = 25.0 * 0.99**step
        optimizer.step()
        optimizer.zero_grad()
    assert (own.unet.shares / ends - 1).abs().max() < 0.1


def test_pseudo_huber():
    difference = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    expected = (9.25**0.5 + 16.25**0.5) / 2 - 0.5
    assert torch.allclose(pseudo_huber(difference, torch.zeros(2, 2), 0.5), torch.tensor([expected, 0.0]))


# What is drawn


def test_emotions_are_drawn_of_all_priors_and_clips_need_no_label(tmp_path):
    parts = {"latents": torch.ones(4, 4, 4, 4), "clip": torch.ones(4, 8), "audio": torch.ones(4, 10, 5, 16)}
    parts |= {"face_mask": torch.full((32, 32), 255, dtype=torch.uint8)}
    records = [Record("a", "", 0, "ann", "train", 4, (4, 4)), Record("b", "sad", 2, "ann", "train", 4, (4, 4))]
    shard = [(record, {name: each.clone() for name, each in parts.items()}) for record in records]
    write_shard(tmp_path / "shard-00000.safetensors", shard)
    clips, own = PreparedClips(tmp_path, 4), {"neutral": torch.zeros(256), "happy": torch.eye(256)[0]}
    own |= {"sad": torch.eye(256)[1]}
    items = [draw_item(clips, own, QUICK, number) for number in range(60)]
    again = draw_item(clips, own, QUICK, 7)
    assert all(torch.equal(each, again[name]) for name, each in items[7].items())
    assert {int(item["level"]) for item in items} <= set(range(25)) and len({int(item["level"]) for item in items}) > 15
    doses = torch.stack([item["z"] for item in items])[:, :2]
    assert ((doses > 0).sum(1) <= 1).all() and (doses > 0).any(0).all() and (doses == 0).all(1).any()
    dose = doses.max(1).values
    assert dose[dose > 0].min() >= 0.5 and dose.max() <= 1.5 and dose[dose > 0].std() > 0.2
    assert torch.allclose(items[0]["latents"], torch.tensor(LATENT_SCALE)) and items[0]["noise"].shape == (4, 4, 4, 4)

    labelled = [draw_item(clips, own, replace(QUICK, labels=True), number) for number in range(60)]
    seen = {name: set() for name in ("", "sad")}
    from dicetalk.training.draw import clip_number

    for number, item in enumerate(labelled):
        seen[clips.records[clip_number(2, QUICK.seed, number)].emotion].add(int(item["z"].abs().argmax()))
    assert seen["sad"] == {1} and seen[""] == {0, 1}
    own.pop("sad")
    build = build_distillation(new_parts(CONFIG), replace(QUICK, labels=True))
    with pytest.raises(InputError, match="no prior of sad"):
        build.drawing(clips, own)

    from dicetalk.training.options import TrainingOptions
    from dicetalk.training.parts import build_objective

    with pytest.raises(InputError, match="The clip a has no emotion"):
        build_objective(new_parts(CONFIG), TrainingOptions()).drawing(clips, own)


# Training


@pytest.mark.parametrize("trains", ["lora", "adapters", "all"])
def test_the_teacher_shares_what_is_frozen_and_stays_as_it_is(clips, trains):
    if trains == "lora":
        pytest.importorskip("peft")
    own = build_distillation(new_parts(CONFIG), replace(QUICK, trains=trains, rank=4))
    teacher = sum(each.numel() for name, each in own.named_parameters() if name.startswith("teacher."))
    learning = {name: each for name, each in own.named_parameters() if each.requires_grad}
    copied = 0 if trains == "lora" else sum(each.numel() for each in learning.values())
    assert teacher == copied, "the teacher is no larger than what learns"
    batch = collate([draw_item(clips, priors(), QUICK, number) for number in range(2)])
    with torch.autocast("cpu", torch.bfloat16):  # whose kept casts must not take the gradients away
        own(batch)[0].backward()
    lacking = [name for name, each in learning.items() if each.grad is None]
    assert not lacking and sum(float(each.grad.abs().sum()) for each in learning.values()) > 0
    fixed = {name: each.detach().clone() for name, each in own.teacher.named_parameters()}
    torch.optim.SGD(learning.values(), lr=1.0).step()
    assert all(torch.equal(each, fixed[name]) for name, each in own.teacher.named_parameters())


def test_the_loss_falls_on_one_repeated_clip(clips):
    own = build_distillation(new_parts(CONFIG), QUICK)
    optimizer = torch.optim.AdamW(learned(own, copied=False).values(), lr=3e-3)
    batch = collate([draw_item(clips, priors(), QUICK, 0)] * 3) | {"level": torch.tensor([14, 16, 18])}
    losses = []
    for _ in range(18):
        loss = own(batch)[0]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_an_ended_run_resumes_to_the_same(clips, tmp_path, accelerator):
    state, short = tmp_path / "state.safetensors", replace(QUICK, steps=3, batch=1, ema=0.9)
    whole = build_distillation(new_parts(CONFIG), short)
    train(whole, clips, priors(), accelerator)
    half = build_distillation(new_parts(CONFIG), replace(short, steps=2))
    train(half, clips, priors(), accelerator, state)
    resumed = build_distillation(new_parts(CONFIG), short)
    train(resumed, clips, priors(), accelerator, state, resume=True)
    assert all(torch.equal(each, learned(resumed)[name]) for name, each in learned(whole).items())
    with pytest.raises(InputError, match="another run: emotion_scale was 6.0"):
        other = build_distillation(new_parts(CONFIG), replace(short, emotion_scale=5.0))
        train(other, clips, priors(), accelerator, state, resume=True)


def test_a_log_of_one_loss_has_a_report(tmp_path):
    from dicetalk.training.report import write_report

    (tmp_path / "report").mkdir()
    write_report(tmp_path / "report", [[1, 0.5, 0.5], [2, 0.25, 0.25]], {}, Distillation.losses)
    assert "| consistency | 0.5 | 0.25 |" in (tmp_path / "report" / "report.md").read_text()
    assert json.loads((tmp_path / "report" / "losses.jsonl").read_text().splitlines()[1]) == {
        **{"step": 2, "total": 0.25, "consistency": 0.25}
    }
