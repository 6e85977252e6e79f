"""Muon and AdamW as one optimizer."""

import copy

import pytest
import torch

from dicetalk.errors import InputError

pytest.importorskip("accelerate")

from dicetalk.miniature.make import make  # noqa: E402
from dicetalk.miniature.muon import Muon  # noqa: E402
from dicetalk.miniature.options import Making  # noqa: E402
from dicetalk.miniature.small_training import SmallTraining  # noqa: E402

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


@pytest.mark.parametrize("part", [slice(None), slice(0, 1), slice(1, 2)])
def test_its_state_is_taken_over(part):
    """Of all weights, of matrices alone, and of none."""

    def start():
        module = network()
        return module, Muon(list(module.parameters())[part], RATE, 0.01)

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


def test_a_small_training_by_it_continues_to_the_same_result(tmp_path):
    def run(name, total):
        module, losses = network(), []
        training = SmallTraining(
            module, RATE, 0.9, tmp_path / name, lambda done, total, loss: losses.append(loss), optimizer=Muon
        )
        for step in training.steps(total):
            picture = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(step))
            training.step(module(picture).square().mean(), step + 1, total)
        return module, losses

    whole, losses = run("whole", 4)
    run("ended", 2)
    continued, rest = run("ended", 4)
    assert rest == losses[2:] and len(rest) == 2
    for one, other, start in zip(whole.parameters(), continued.parameters(), network().parameters()):
        assert torch.equal(one, other) and not torch.equal(one, start)


def test_an_older_pytorch(monkeypatch, tmp_path):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(InputError, match="needs PyTorch 2.9 or newer"):
        make(tmp_path / "out", tmp_path / "work", Making(), "no")
    assert list(tmp_path.iterdir()) == []
