"""Training the method on clips made of numbers: losses, what learns, resuming, processes, and what comes out."""

import json
import os
from dataclasses import replace

import pytest
import torch
import warm
from prepared import CONFIG, SIZE, priors, write_clips
from project import ROOT
from safetensors.torch import load_file, save_file

from dicetalk import cli
from dicetalk.checkpoints.finding import resolve_checkpoint
from dicetalk.checkpoints.loading import load_part
from dicetalk.checkpoints.student import Student
from dicetalk.checkpoints.tiny import emotion_means
from dicetalk.emotion.options import CLASSES
from dicetalk.errors import InputError
from dicetalk.training.dataset import PreparedClips
from dicetalk.training.draw import draw_item, generator
from dicetalk.training.labels import classes_of, read_emotion, read_level
from dicetalk.training.losses import (
    allowed_classes,
    denoising_loss,
    discrimination_loss,
    noise_weight,
    preconditioning,
)
from dicetalk.training.options import TrainingOptions
from dicetalk.training.parts import build_objective, load_svd_unet, new_parts, save_parts, start_from_emotions

accelerate = pytest.importorskip("accelerate")
pytest.importorskip("matplotlib")

from dicetalk.training.loop import NotFinite, rate_of, train  # noqa: E402

QUICK = TrainingOptions(trains="all", steps=6, batch=2, frames=4, rate=3e-3, warm_up=1, checkpointing=False)


def objective(options=QUICK, seed=0):
    return build_objective(new_parts(CONFIG, seed), options)


def run(clips, accelerator, options=QUICK, **more):
    own = objective(options)
    history = train(own, clips, priors(), accelerator, **more)
    return own, history


def share_apart(one, other):
    """The share of weights that are apart by more than a tenth of what a step moves them.

    Not none: Adam makes whole steps of gradients that are zero but for rounding, such as of a bias before a norm.
    """
    apart = [(tensor - other[name]).abs().flatten() > QUICK.rate / 10 for name, tensor in one.items()]
    return torch.cat(apart).float().mean().item()


def weights(own):
    return {name: each.detach().clone() for name, each in own.named_parameters()}


# Losses


def test_preconditioning_is_that_of_the_scheduler_the_model_samples_with():
    from diffusers import EulerDiscreteScheduler

    from dicetalk.model.settings import SCHEDULER_CONFIG

    scheduler = EulerDiscreteScheduler.from_config(SCHEDULER_CONFIG)
    scheduler.set_timesteps(5)
    random = torch.Generator().manual_seed(0)
    noisy, v = torch.randn((2, 1, 1, 3, 4, 2, 2), generator=random)
    for step, timestep in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[step]
        scale = preconditioning(sigma)
        scaled = scheduler.scale_model_input(noisy, timestep)
        assert torch.allclose(scaled, scale["in"] * noisy, rtol=1e-5)
        assert float(timestep) == pytest.approx(float(scale["noise"]), rel=1e-4)
        denoised = scheduler.step(v, timestep, noisy).pred_original_sample
        assert torch.allclose(denoised, scale["skip"] * noisy + scale["out"] * v, rtol=1e-3, atol=1e-4)


def test_denoising_loss_is_the_unweighted_error_of_v():
    random = torch.Generator().manual_seed(0)
    clean, noise, guess = torch.randn((3, 2, 3, 4, 2, 2), generator=random)
    sigma = torch.tensor([0.3, 40.0])
    wide = sigma[:, None, None, None, None]
    noisy = clean + wide * noise
    target = (noise - wide * clean) / (1 + wide**2).sqrt()
    assert denoising_loss(target, noisy, clean, sigma).abs().max() < 1e-3
    expected = (guess - target).square().flatten(1).mean(1)
    assert torch.allclose(denoising_loss(guess, noisy, clean, sigma), expected, rtol=1e-3)


def test_classes_are_the_released_22():
    from dicetalk.emotion.options import NAMES

    seen = [number for name in NAMES for level in (1, 2, 3) for number in classes_of(name, level)]
    assert sorted(set(seen)) == list(range(len(CLASSES))) and len(CLASSES) == 22
    assert classes_of("neutral", 1) == classes_of("neutral", 0) == (21,)
    assert classes_of("happy", 0) == tuple(classes_of("happy", level)[0] for level in (1, 2, 3))
    assert (read_level("level_3", "x"), read_level("", "x"), read_level(2, "x")) == (3, 0, 2)
    assert [read_level(level, "x") for level in ("Level 3", "LEVEL_1", "2.0", 3.0)] == [3, 1, 2, 3]
    assert [read_emotion(label, "x") for label in ("Happy", "anger", "SADNESS")] == ["happy", "angry", "sad"]
    with pytest.raises(InputError, match="row 3: the emotion is 'calm'"):
        read_emotion("calm", "row 3")
    with pytest.raises(InputError, match="row 3: the level is 'loud'"):
        read_level("loud", "row 3")


def test_an_unknown_level_sums_the_probabilities_of_its_three():
    logits = torch.randn(1, 2, len(CLASSES), generator=torch.Generator().manual_seed(0))
    shares = logits.softmax(-1)
    known, unknown = (allowed_classes(classes_of("sad", level))[None] for level in (2, 0))
    assert unknown.sum() == 3
    expected = [-shares[..., each].sum(-1).log().mean(1) for each in (classes_of("sad", 2), classes_of("sad", 0))]
    assert torch.allclose(discrimination_loss(logits, known), expected[0])
    assert torch.allclose(discrimination_loss(logits, unknown), expected[1])


def test_noise_weights():
    sigma = torch.tensor([0.5, 2.0])
    assert noise_weight(sigma, "weighted").tolist() == pytest.approx([0.8, 0.2])
    assert noise_weight(sigma, "all").tolist() == [1, 1] and noise_weight(sigma, "low").tolist() == [1, 0]


# What is drawn


def test_what_is_drawn_follows_the_options(clips):
    own = replace(QUICK, sigma_mean=1.0, sigma_deviation=0.5, drop_all=0.25, drop_driving=0.25, reference=0.5)
    items = [draw_item(clips, priors(), clips.references(), own, (16, 16), number) for number in range(400)]
    logs = torch.stack([item["sigma"] for item in items]).log()
    assert logs.mean() == pytest.approx(1.0, abs=0.1) and logs.std() == pytest.approx(0.5, abs=0.08)
    seen, told = (torch.stack([item[name] for item in items]) for name in ("seen", "told"))
    assert seen.mean() == pytest.approx(0.75, abs=0.07) and told.mean() == pytest.approx(0.5, abs=0.08)
    assert (seen >= told).all(), "U has neither, R the portrait alone, C both"
    assert items[0]["latents"].shape == (4, 4, *SIZE) and items[0]["audio"].shape == (4, 10, 5, 16)
    kept = torch.stack([item["keep1"] for item in items]).float().mean()
    assert kept == pytest.approx(0.9, abs=0.01)
    again = draw_item(clips, priors(), clips.references(), own, (16, 16), 7)
    assert all(torch.equal(items[7][name], again[name]) for name in again)
    assert not torch.equal(items[7]["noise"], items[8]["noise"])
    # Priors are 0, 0.5 and 1; clips' Gaussians 0, 1 and 2.
    means = {round(2 * float(item["z"].mean())) / 2 for item in items}
    assert means == {0.0, 0.5, 1.0, 2.0}
    assert torch.rand((), generator=generator(1)) == torch.rand((), generator=generator(1))


def test_references_are_of_other_people(clips):
    for record, others in zip(clips.records, clips.references()):
        assert others
        for other in others:
            assert clips.records[other].emotion == record.emotion and clips.records[other].person != record.person


def test_data_that_cannot_be_trained_on(tmp_path, clips, accelerator):
    with pytest.raises(InputError, match="no prepared clips"):
        PreparedClips(tmp_path, 4)
    with pytest.raises(InputError, match="no clip of the split 'train' with 99 frames"):
        PreparedClips(write_clips(tmp_path), 99)
    alone = PreparedClips(write_clips(tmp_path / "alone", people=("ann",)), 4)
    with pytest.raises(InputError, match="no clip of happy by another person"):
        train(objective(replace(QUICK, reference=0.5)), alone, priors(), accelerator)
    with pytest.raises(InputError, match="There is no prior of sad"):
        train(objective(), clips, {"happy": torch.zeros(256), "neutral": torch.zeros(256)}, accelerator)
    with pytest.raises(InputError, match="give --batch a multiple of 2"):
        train(objective(replace(QUICK, batch=3, accumulate=2)), clips, priors(), accelerator)


# What learns


@pytest.mark.parametrize("trains", ["adapters", "all"])
@pytest.mark.parametrize("bank", ["retrieval", "full", "both"])
@pytest.mark.parametrize("discrimination", [0.1, 0.0])
def test_every_weight_that_learns_gets_a_gradient_and_no_other(clips, trains, bank, discrimination):
    options = replace(QUICK, trains=trains, bank=bank, discrimination=discrimination, drop_all=0.0)
    own = objective(options)
    with torch.no_grad():  # the last layer of a new pose guider is all zeros, and stops the gradient
        own.pose_guider.conv_out.weight.normal_()
    items = [draw_item(clips, priors(), clips.references(), options, (16, 16), number) for number in range(2)]
    batch = {name: torch.stack([item[name] for item in items]) for name in items[0]}
    own(batch)[0].backward()
    for name, parameter in own.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    learning = {name for name, each in own.named_parameters() if each.requires_grad}
    assert any(name.startswith("unet.conv_in") for name in learning) == (trains == "all")
    assert any(".to_k_ip.1." in name for name in learning) and not any(
        ".attn2.to_k.weight" in name for name in learning
    )
    assert any("codebook.codebook" in name for name in learning) == (bank != "full")
    assert any("classifier" in name for name in learning) == (discrimination > 0)


def test_the_losses_fall(clips, accelerator):
    options = replace(QUICK, steps=60, batch=4, rate=5e-3, ema=0.0, sigma_deviation=0.5)
    _, history = run(clips, accelerator, options)
    first, last = (torch.tensor(part).mean(0) for part in (history[:10], history[-10:]))
    assert last[2] < 0.8 * first[2], "denoising"
    assert last[4] < 0.95 * first[4], "discrimination"


def test_parts_of_a_batch_and_checkpointing_give_the_same_result(clips, accelerator):
    options = replace(QUICK, steps=3, batch=4)
    whole, history = run(clips, accelerator, options)
    parts, again = run(clips, accelerator, replace(options, accumulate=2, checkpointing=True))
    # Quantization and what follows are means over the batch, so that the parts' mean is the whole's.
    assert torch.allclose(torch.tensor(history), torch.tensor(again), rtol=1e-3, atol=1e-4)
    assert share_apart(weights(whole), weights(parts)) < 0.02


def test_the_learning_rate_is_a_trapezoid():
    options = replace(QUICK, steps=10, rate=1.0, warm_up=2, cool_down=4)
    assert [rate_of(options, step) for step in range(10)] == [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert {rate_of(replace(options, warm_up=0, cool_down=0), step) for step in range(10)} == {1.0}


def test_training_resumes_to_the_same_result(clips, accelerator, tmp_path):
    whole, history = run(clips, accelerator)

    class Stop(Exception):
        pass

    def stop(done, *_):
        if done == 5:
            raise Stop

    state = tmp_path / "state.safetensors"
    with pytest.raises(Stop):
        run(clips, accelerator, state=state, save_every=2, on_step=stop)
    steps = []
    resumed, again = run(
        *(clips, accelerator), state=state, save_every=2, resume=True, on_step=lambda done, *_: steps.append(done)
    )
    assert steps == [5, 6] and again == history
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(resumed)[name]), name
    with pytest.raises(InputError, match="another run: rate was 0.003"):
        run(clips, accelerator, replace(QUICK, rate=0.1), state=state, resume=True)
    longer, more = run(clips, accelerator, replace(QUICK, steps=8, cool_down=2), state=state, resume=True)
    assert more[:6] == history and len(more) == 8
    state.write_bytes(b"no state")
    with pytest.raises(InputError, match="no state of a training"):
        run(clips, accelerator, state=state, resume=True)


def test_a_loss_that_is_not_finite_ends_the_training_and_keeps_the_last_state(accelerator, tmp_path):
    folder = write_clips(tmp_path / "clips", shift=float("nan"))
    state = tmp_path / "state.safetensors"
    state.write_bytes(b"the last")
    with pytest.raises(NotFinite, match="The loss is not finite in step 1"):
        run(PreparedClips(folder, 4), accelerator, state=state, save_every=1)
    assert state.read_bytes() == b"the last"


def test_a_full_disk_is_one_line_and_keeps_the_last_state(clips, accelerator, tmp_path, monkeypatch):
    import errno

    import safetensors.torch

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    state = tmp_path / "state.safetensors"
    state.write_bytes(b"the last")
    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(InputError, match="state.safetensors cannot be written: the disk is full"):
        run(clips, accelerator, state=state, save_every=1)
    assert state.read_bytes() == b"the last" and [path.name for path in tmp_path.iterdir()] == [state.name]


# What comes out


def test_parts_are_saved_as_the_published_ones_and_load_again(tmp_path):
    own = objective().eval()
    files = save_parts(own, tmp_path)
    assert sorted(path.name for path in files) == [
        *("audio_linear.pth", "emo_model.pth", "emotion_classes.json", "pose_guider.pth", "unet.pth")
    ]
    for path in files:
        if path.suffix == ".json":
            continue
        loaded = load_part(path.stem, path).state_dict()
        for name, tensor in getattr(own, path.stem).state_dict().items():
            assert torch.equal(loaded[name], tensor), name


def test_sizes_that_do_not_fit_are_refused():
    def changed(part, **sizes):
        return {**CONFIG, part: {**CONFIG[part], **sizes}}

    for config, told in (
        (changed("audio_linear", dim=16), "audio projection's tokens"),
        (changed("emo_model", classifier_dims=[8, 4, 4, 22]), "classifier's input"),
        (changed("emo_model", heads=2), "heads are 2"),
        (changed("unet", num_attention_heads=[2, 2]), "num_attention_heads"),
        (changed("unet", colour=1), "configuration of unet cannot be used"),
        ([], "must be an object"),
    ):
        with pytest.raises(InputError, match=told):
            new_parts(config)


def test_a_plain_video_diffusion_unet_starts_as_it_is(tmp_path):
    unet = new_parts(CONFIG)["unet"].eval()
    plain = {name: tensor for name, tensor in unet.state_dict().items() if ".attn2.processor." not in name}
    path = tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    path.parent.mkdir()
    save_file(plain, path)
    started = load_svd_unet(tmp_path).eval()
    random = torch.Generator().manual_seed(0)
    given = {
        "sample": torch.randn((1, 3, 8, *SIZE), generator=random),
        "timestep": 0.5,
        "encoder_hidden_states": torch.randn((1, 1, 1, 8), generator=random),
        "added_time_ids": torch.tensor([[12.5, 8, 16]]),
        "audio_tokens": torch.randn((1, 3, 2, 8), generator=random),
        "emotion_tokens": torch.randn((1, 1, 2, 8), generator=random),
        "pose_features": torch.zeros(1, 1, 32, *SIZE),
        "face_mask": torch.ones(1, 1, 8 * SIZE[0], 8 * SIZE[1]),
    }
    with torch.no_grad():
        expected = unet(**given, audio_scale=0, emotion_scale=0).sample
        assert torch.allclose(started(**given).sample, expected, atol=1e-6)
    assert new_parts({**CONFIG, "unet": {}}, unet=started)["unet"] is started
    path.unlink()
    with pytest.raises(InputError, match="holds no unet"):
        load_svd_unet(tmp_path)
    save_file({"conv_in.weight": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="is not the UNet of Stable Video Diffusion"):
        load_svd_unet(tmp_path)


def test_a_lora_is_merged_and_written_under_names_that_comfyui_reads(clips, accelerator, tmp_path):
    pytest.importorskip("peft")
    before = new_parts(CONFIG)["unet"].state_dict()
    own, _ = run(clips, accelerator, replace(QUICK, trains="lora", rank=2, ema=0.0, rate=0.05))
    save_parts(own, tmp_path)
    lora, merged = load_file(tmp_path / "lora.safetensors"), load_part("unet", tmp_path / "DICE-Talk" / "unet.pth")
    acted = {name.split(".lora_")[0].removeprefix("diffusion_model.") for name in lora}
    assert acted and all(name.startswith("diffusion_model.") for name in lora)
    for name, tensor in merged.state_dict().items():
        module = name.removesuffix(".weight")
        if module not in acted:
            assert torch.equal(tensor, before[name]), name
            continue
        up, down = (lora[f"diffusion_model.{module}.lora_{part}.weight"] for part in "BA")
        assert torch.allclose(tensor, before[name] + up @ down, atol=1e-5) and not torch.equal(tensor, before[name])


TWO = """
import sys, torch
sys.path[:0] = [{helpers!r}]
from prepared import priors
from accelerate import Accelerator
import json
from test_training import QUICK, objective
from dicetalk.training.dataset import PreparedClips
from dicetalk.training.loop import train
from dicetalk.training.parts import save_parts
torch.set_num_threads(1)
accelerator = Accelerator(cpu=True)
own = objective()
history = train(own, PreparedClips({clips!r}, 4), priors(), accelerator, state={state!r})
if accelerator.is_main_process:
    assert accelerator.num_processes == 2
    save_parts(own, {out!r})
    print(json.dumps(history))
from dicetalk import cli
cli.COMMANDS = ("distill",)
sys.exit(cli.main({distill!r}))
"""


def test_two_processes_give_the_result_of_one(clips, accelerator, unlabelled, tiny_checkpoint, tmp_path, monkeypatch):
    """Of training, and of the command `distill`; in one start of both processes, which takes longer than the rest."""
    distill = ["distill", unlabelled, "--checkpoint", tiny_checkpoint, "--device", "cpu", "--frames", 2, "--steps", 2]
    distill += ["--trains", "adapters", "--batch", 2, "--rate", QUICK.rate, "--warm-up", 0, "--ema", 0, "--output"]
    distill = list(map(str, distill))
    folder, state = write_clips(tmp_path / "clips"), tmp_path / "state.safetensors"
    helpers = str(ROOT / "tests" / "helpers")
    places = {"clips": str(folder), "state": str(state), "out": str(tmp_path / "out")}
    places |= {"distill": [*distill, str(tmp_path / "students" / "two")]}
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "training", ROOT / "tests" / "helpers")))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    processes = warm.start_group(TWO.format(helpers=helpers, **places), environment=environment, cwd=tmp_path)
    printed, errors = zip(*(process.communicate() for process in processes))
    assert [process.returncode for process in processes] == [0, 0], "\n".join(error[-3000:] for error in errors)
    whole, history = run(clips, accelerator)
    two = next(json.loads(line) for line in printed[0].splitlines() if line.startswith("[["))
    assert torch.allclose(torch.tensor(two), torch.tensor(history), rtol=1e-3, atol=1e-4)
    loaded = load_part("unet", tmp_path / "out" / "DICE-Talk" / "unet.pth").state_dict()
    assert share_apart(whole.unet.state_dict(), loaded) < 0.02
    resumed, again = run(clips, accelerator, state=state, resume=True)
    assert len(again) == len(history), "one process continues what two have done"

    monkeypatch.setattr(cli, "COMMANDS", ("distill",))
    # A clip at a time here too: sums on the CPU differ with the size of a batch, and guidance multiplies that.
    assert cli.main([*distill, str(tmp_path / "students" / "one"), "--accumulate", "2"]) == 0
    students = [resolve_checkpoint(tmp_path / "students" / name) for name in ("one", "two")]
    assert students[0].student == students[1].student == Student(4, 3.0, 6.0, "tiny")
    one, two = (load_part("unet", each.file("unet")).state_dict() for each in students)
    started = load_part("unet", resolve_checkpoint(tiny_checkpoint).file("unet")).state_dict()
    learned = {name: each for name, each in one.items() if not torch.equal(each, started[name])}
    assert learned and share_apart(learned, two) < 0.02 < share_apart(learned, started)
    assert "processes | 2" in (tmp_path / "students" / "two" / "report" / "report.md").read_text()


KILLED = """
import os, signal
import safetensors.torch, torch
from accelerate import Accelerator
from prepared import priors
from test_training import QUICK, objective
from dicetalk.training.dataset import PreparedClips
from dicetalk.training.loop import train
torch.set_num_threads(1)
write, count = safetensors.torch.save_file, 0

def half(tensors, path, metadata):
    global count
    count += 1
    if count == 4:
        path.write_bytes(b"half of a state")
        os.kill(os.getpid(), signal.SIGKILL)
    write(tensors, path, metadata)

safetensors.torch.save_file = half
train(objective(), PreparedClips({clips!r}, 4), priors(), Accelerator(cpu=True), state={state!r}, save_every=1)
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_a_process_killed_while_it_writes_leaves_the_last_state_to_go_on_with(clips, accelerator, tmp_path):
    folder, state = write_clips(tmp_path / "clips"), tmp_path / "state.safetensors"
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "training", ROOT / "tests" / "helpers")))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    killed = warm.start(KILLED.format(clips=str(folder), state=str(state)), environment=environment, cwd=tmp_path)
    _, errors = killed.communicate()
    assert killed.returncode == -9, errors
    steps = []
    run(clips, accelerator, state=state, resume=True, on_step=lambda step, *_: steps.append(step))
    assert steps == [4, 5, 6]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "state.safetensors"]


def test_a_new_emotion_model_distinguishes_emotions_from_the_start():
    """They are far from zero and alike, as the published ones; without this all had one code, and stayed there."""
    means = {name: torch.from_numpy(mean) for name, mean in emotion_means().items()}
    whole = torch.stack([means[name] for name in sorted(means)])
    shares, codes = [], []
    for start in (False, True):
        sizes = {**CONFIG["emo_model"], "hidden": 64, "codes": 64}
        emotion = new_parts({**CONFIG, "emo_model": sizes})["emo_model"]
        if start:
            start_from_emotions(emotion, means)
        with torch.no_grad():
            tokens = emotion.training_tokens(whole, True)[0].flatten(1)
        shares.append(float(torch.pdist(tokens).mean() / tokens.norm(dim=1).mean()))
        codes.append(len(set(emotion.nearest_code(whole).tolist())))
    assert codes == [codes[0], 8] and codes[0] < 4
    assert shares[0] < 0.1 and shares[1] > 0.4
