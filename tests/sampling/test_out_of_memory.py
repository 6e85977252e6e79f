"""When memory runs out in the pipeline's sampling."""

import logging

import pytest
import torch
from live_bytes import LiveBytes

from dicetalk.checkpoints.classes import KNOWN_FROM_TRAINING
from dicetalk.checkpoints.tiny import UNET_CONFIG
from dicetalk.errors import InputError
from dicetalk.memory import free_memory, gathered, is_out_of_memory, require_memory
from dicetalk.sampling.conditions import Conditions
from dicetalk.sampling.economy import Economy, fitting_side, too_large, window_bytes
from dicetalk.sampling.loop import LATENT_COPIES, REUSE_COPIES, SOLVER_COPIES, sample
from dicetalk.sampling.meter import Meter
from dicetalk.sampling.schedules import make_scheduler
from dicetalk.sampling.speed import Savings
from dicetalk.sampling.windows import plan_with_smaller

FRAMES, WINDOW = 7, 25


class Network:
    """Takes up to `rows` frames at once; what it gives for a branch does not depend on the other branches."""

    dtype, device = torch.float32, torch.device("cpu")
    config = UNET_CONFIG

    def __init__(self, rows=75):
        self.rows, self.batches = rows, []

    def __call__(self, x, timestep, audio_tokens, emotion_tokens, return_dict, **inputs):
        self.batches.append(x.shape[0] * x.shape[1])
        if self.batches[-1] > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        told = (
            audio_tokens.mean(dim=(2, 3))[:, :, None, None, None]
            + emotion_tokens.mean(dim=(1, 2, 3))[:, None, None, None, None]
        )
        return (x[:, :, :4] * 0.2 + x[:, :, :4].mean(dim=1, keepdim=True) + told * timestep,)


def run(unet, frames=FRAMES, size=(32, 48), sampler="euler", steps=3, **options):
    random = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=random)

    conditions = Conditions(
        image_latent=normal(1, 4, *size),
        clip_embeds=normal(1, 8),
        audio_tokens=normal(frames, 2, 8),
        uncond_audio_tokens=normal(1, 2, 8),
        emotion_tokens=normal(1, 2, 8),
        uncond_emotion_tokens=normal(1, 2, 8),
        face_mask=torch.ones(1, 1, 256, 384),
        pose_features=normal(1, 8, *size),
    )
    noise = normal(frames + WINDOW, 4, *size)
    return sample(unet, conditions, noise, make_scheduler(sampler), steps, **options)


def test_branches_go_one_after_the_other(caplog):
    plain = run(Network())
    split = Network(WINDOW)
    windows = []
    frames = run(split, on_window=lambda done, total: windows.append((done, total)))
    assert split.batches[0] == 75 and set(split.batches[1:]) == {25}
    assert (frames - plain).abs().max() < 1e-4 * plain.abs().max()
    assert windows == [(number, windows[-1][1]) for number in range(1, windows[-1][1] + 1)]
    assert "one after the other" in caplog.text


class Watched(Network):
    def __call__(self, x, timestep, only_middle=False, mid_features=False, **inputs):
        prediction = super().__call__(x, timestep, **{"return_dict": False, **inputs})
        middle = x[:, :, :2].flatten(0, 1)
        return middle if only_middle else (*prediction, *[middle] * mid_features)


class FailsInTheEnd(Watched):
    def __call__(self, *args, only_middle=False, **inputs):
        if only_middle:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().__call__(*args, **inputs)


def test_the_meter_reads_in_windows_that_fit():
    unet, meter = (
        Watched(WINDOW - 1),
        Meter(lambda features: features.new_zeros(len(features), 22), KNOWN_FROM_TRAINING),
    )
    run(unet, 30, smaller_windows=True, meter=meter)
    assert unet.batches[-1] == 13 and meter.shares.shape == (30, 8)
    assert meter.shares == pytest.approx(meter.shares[:1].repeat(30, 0)) and meter.shares.sum(1) == pytest.approx(1)
    with pytest.raises(InputError, match="too small"):
        run(FailsInTheEnd(), 30, meter=meter)


def test_smaller_windows_only_when_allowed(caplog):
    plain = run(Network())
    assert torch.allclose(run(Network(), smaller_windows=True), plain, atol=1e-3)
    small = Network(10)
    frames = run(small, smaller_windows=True)
    assert small.batches[:4] == [75, 25, 13, 7] and set(small.batches[3:]) == {7}
    assert frames.isfinite().all() and not torch.allclose(frames, plain, rtol=1e-2)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 3


def test_one_error_says_what_would_fit(monkeypatch):
    needed = window_bytes(Network(), WINDOW, 384, 256)
    assert 10 < needed / (4 * WINDOW * 4 * 48 * 32) < 1000  # times the latents
    monkeypatch.setattr("dicetalk.sampling.loop.free_memory", lambda device: 0.6 * needed)
    network = Network(24)
    with pytest.raises(InputError) as refused:
        run(network)
    text = str(refused.value)
    assert "25 frames of 384×256 pixels" in text and "--size 192" in text and "--smaller-windows" in text
    assert f"{needed / 1e9:.2f} GB are needed, {0.6 * needed / 1e9:.2f} GB free" in text
    assert network.batches == [75, 25]


@pytest.mark.parametrize("frames", [1, 7, 30])
@pytest.mark.parametrize("size", [4, 7, 13, 25])
def test_every_frame_is_in_a_smaller_window(frames, size):
    for overlap in (0, 24):
        for windows in plan_with_smaller(frames, 3, size, overlap=overlap):
            assert {len(window) for window in windows} == {size}
            assert set().union(*windows) == set(range(frames + WINDOW))


@pytest.mark.parametrize(
    ("side", "free", "fits"),
    [(512, 0.6, 384), (512, 0.99, 448), (512, 5.0, 448), (512, 0.02, 64), (512, 0.01, None), (64, 0.9, None)],
)
def test_fitting_side(side, free, fits):
    assert fitting_side(side, 1.0, free) == fits


def test_nothing_fits():
    text = str(too_large("cuda:0", 512, 512, 4, 8e9, 1e6, lambda side: f"use {side}"))
    assert "cuda:0" in text and "a device with more memory" in text and "use " in text


@pytest.mark.parametrize(
    ("error", "meant"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_is_out_of_memory(error, meant):
    assert is_out_of_memory(error) is meant


def test_a_real_allocation_that_fails_is_recognised():
    with pytest.raises(RuntimeError) as failed:
        torch.empty(2**62, dtype=torch.uint8)
    assert is_out_of_memory(failed.value)


def test_economy_raises_other_errors_at_once():
    tried = []

    def broken():
        tried.append(1)
        raise KeyError("name")

    with pytest.raises(KeyError):
        Economy(25, True, release=lambda: None).attempt(None, broken)
    assert tried == [1]


# What is known not to suffice is refused before the work


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
@pytest.mark.parametrize("reuse", [1, 2])
def test_sampling_holds_as_many_copies_of_the_latents_as_are_counted(sampler, reuse):
    frames, (height, width) = 600, (8, 8)
    with LiveBytes() as live:
        run(Network(), frames, (height, width), sampler, steps=5, savings=Savings(reuse))
    copies = live.peak / (4 * 4 * height * width * (frames + WINDOW))
    counted = LATENT_COPIES + REUSE_COPIES * (reuse > 1) + SOLVER_COPIES * (sampler == "dpmpp_2m")
    assert counted - 2 < copies < counted


HOURS = 3 * 3600 * 125 // 10  # frames of three hours


@pytest.mark.parametrize(("free", "told"), [(8e9, "use 576 s"), (1e4, "a machine with more"), (-1, "a machine with")])
def test_a_clip_that_is_too_long_is_refused_with_what_fits(free, told):
    with pytest.raises(InputError) as refused:
        require_memory("audio", HOURS, 1e6, free, lambda seconds: f"use {seconds} s")
    text = str(refused.value)
    assert text.startswith("audio lasts 10800 s, which needs 135.0 GB of memory, and ") and told in text
    if "use 576 s" in text:
        require_memory("audio", 576 * 125 // 10, 1e6, free, None)


@pytest.mark.parametrize("free", [None, 151e9])
def test_a_clip_that_fits_is_let_through(free):
    require_memory("audio", HOURS, 1e6, free, None)


def test_free_memory_is_that_of_this_machine(monkeypatch):
    assert 1e6 < free_memory("cpu") < 1e15
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1_000, 10_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 500)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 300)
    assert free_memory("cuda") == 1_200, "with what PyTorch keeps and does not use"


def test_gathering_takes_the_whole_once():
    pieces = (torch.full((size, 1000), float(size)) for size in range(1, 100))
    with LiveBytes() as live:
        whole = gathered(pieces, 4950)
    assert whole.shape == (4950, 1000) and whole[:3, 0].tolist() == [1, 2, 2]
    assert torch.equal(whole[-99:], torch.full((99, 1000), 99.0))
    assert live.peak < 1.1 * whole.nbytes
