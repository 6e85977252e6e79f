"""Muon and AdamW as one optimizer."""

import copy
from dataclasses import replace

import pytest
import torch
from prepared import CONFIG, priors, write_clips

from dicetalk.errors import InputError
from dicetalk.training.dataset import PreparedClips
from dicetalk.training.optimizers import Muon, new_optimizer
from dicetalk.training.options import TrainingOptions
from dicetalk.training.parts import build_objective, new_parts

accelerate = pytest.importorskip("accelerate")

from dicetalk.training.loop import train  # noqa: E402

RATE = 1e-2


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.GroupNorm(2, 8), torch.nn.Conv2d(8, 4, 1))


def learn(module, optimizer, steps, first=0):
    for step in range(first, first + steps):
        picture = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        module(picture).square().mean().backward()
        optimizer.step()


def test_kernels_move_as_matrices_by_muon_and_the_rest_by_adamw():
    ours, own = network(), network()
    learn(ours, Muon(ours.parameters(), RATE, 0.1), 3)
    kernels = [own[0].weight, own[2].weight]
    flat = [torch.nn.Parameter(each.detach().flatten(1).clone()) for each in kernels]
    muon = torch.optim.Muon(flat, lr=RATE, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    rest = [each for each in own.parameters() if each.ndim == 1]
    adamw = torch.optim.AdamW(rest, RATE / 4, (0.9, 0.95), weight_decay=0.1)
    for step in range(3):
        picture = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(step))
        own.zero_grad()
        own(picture).square().mean().backward()
        for matrix, kernel in zip(flat, kernels):
            matrix.grad = kernel.grad.flatten(1)
        muon.step()
        adamw.step()
        with torch.no_grad():
            for matrix, kernel in zip(flat, kernels):
                kernel.copy_(matrix.view_as(kernel))
    for one, other in zip(ours.parameters(), own.parameters()):
        assert torch.equal(one, other)


def test_it_follows_a_changed_learning_rate():
    module = network()
    optimizer = Muon(module.parameters(), RATE)
    before = copy.deepcopy(module.state_dict())
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    learn(module, optimizer, 1)
    assert all(torch.equal(before[name], each) for name, each in module.state_dict().items())


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("part", [slice(None), slice(0, 1), slice(1, 2)])
def test_its_state_is_taken_over(kind, part):
    """Of all weights, of matrices alone, and of none."""

    def start():
        module = network()
        return module, new_optimizer(kind, list(module.parameters())[part], RATE, 0.01)

    whole, optimizer = start()
    learn(whole, optimizer, 4)
    first, optimizer = start()
    learn(first, optimizer, 2)
    kept = copy.deepcopy(optimizer.state_dict())
    second, optimizer = start()
    second.load_state_dict(first.state_dict())
    optimizer.load_state_dict(kept)
    learn(second, optimizer, 2, first=2)
    for one, other in zip(whole.parameters(), second.parameters()):
        assert torch.equal(one, other)


def test_weights_in_another_layout_learn_too():
    plain, last = network(), network().to(memory_format=torch.channels_last)
    for module in (plain, last):
        learn(module, Muon(module.parameters(), RATE), 2)
    assert torch.allclose(plain[0].weight, last[0].weight, atol=1e-5)
    assert not torch.equal(plain[0].weight, network()[0].weight)


def test_the_method_trains_by_it_and_continues_to_the_same_result(tmp_path):
    torch.set_num_threads(1)
    clips = PreparedClips(write_clips(tmp_path / "clips"), 4)
    options = TrainingOptions(
        trains="all", steps=4, batch=2, frames=4, optimizer="muon", rate=3e-3, warm_up=1, checkpointing=False
    )
    found = []
    for stop in (4, 2):
        objective = build_objective(new_parts(CONFIG, 0), replace(options, steps=stop))
        accelerator = accelerate.Accelerator(cpu=True)
        history = train(objective, clips, priors(), accelerator, tmp_path / f"{stop}.safetensors", save_every=1)
        found.append((objective, history))
    objective = build_objective(new_parts(CONFIG, 0), options)
    history = train(objective, clips, priors(), accelerator, tmp_path / "2.safetensors", save_every=1, resume=True)
    assert history == found[0][1]
    for (name, one), other in zip(found[0][0].named_parameters(), objective.parameters()):
        assert torch.equal(one, other), name
    start = dict(build_objective(new_parts(CONFIG, 0), options).named_parameters())
    assert not torch.equal(start["unet.conv_in.weight"], objective.unet.conv_in.weight)


def test_an_older_pytorch(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(InputError, match="needs PyTorch 2.9 or newer"):
        new_optimizer("muon", network().parameters(), RATE, 0.0)
