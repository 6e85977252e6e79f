"""What the MODEL and the GUIDER hold in memory inside ComfyUI, with its real classes, on the CPU."""

import gc
import math
import weakref
from contextlib import ExitStack, contextmanager

import pytest
import torch
from live_bytes import LiveBytes
from small_model import LATENT, SmallModel
from torch.utils._python_dispatch import _disable_current_modes

FLOAT8 = ("fp8_e4m3fn", "fp8_e4m3fn_fast")


@pytest.fixture(scope="module")
def small(pack):
    return SmallModel(pack)


@pytest.fixture(scope="module")
def plain(small):
    return small.sample()[0]


@pytest.fixture(scope="module")
def unet_file(small, tmp_path_factory):
    return small.save(tmp_path_factory.mktemp("unet") / "unet.pth")


@pytest.mark.parametrize("name", ["default", "fp32", "fp16", "bf16", *FLOAT8])
def test_every_weight_type_loads_and_samples(small, plain, unet_file, name):
    options = small.module("nodes.loader")._WEIGHT_TYPES[name]
    patcher = small.module("nodes.sampling.model").load_unet(unet_file, options)
    weights = dict(patcher.model.diffusion_model.named_parameters())
    wanted = options.get("dtype", torch.float32 if patcher.load_device.type == "cpu" else torch.float16)
    assert {w.dtype for n, w in weights.items() if not n.endswith("mix_factor")} == {wanted}
    assert {w.dtype for n, w in weights.items() if n.endswith("mix_factor")} == {torch.float32}
    one_step, _ = small.sample(small.guider(patcher), steps=1)
    exact, _ = small.sample(steps=1)
    error = (one_step - exact).abs().mean() / exact.abs().mean()
    assert error < (0.5 if name in FLOAT8 else 0.1)
    if wanted is torch.float32:
        assert torch.equal(small.sample(small.guider(patcher))[0], plain)


def test_only_blend_factors_cannot_be_offloaded(small):
    unmanaged = {
        name: [parameter.numel() for parameter in module.parameters(recurse=False)]
        for name, module in small.patcher.model.diffusion_model.named_modules()
        if list(module.parameters(recurse=False)) and not hasattr(module, "comfy_cast_weights")
    }
    assert unmanaged and all(name.endswith("time_mixer") and size == [1] for name, size in unmanaged.items())


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7])
def test_part_of_the_model_loaded_gives_the_same_bit_for_bit(small, plain, unet_file, monkeypatch, share):
    import comfy.model_management

    patcher = small.load(unet_file)
    load = comfy.model_management.LoadedModel.model_load
    budget = int(patcher.model_size() * share)
    monkeypatch.setattr(
        comfy.model_management.LoadedModel,
        "model_load",
        lambda loaded, lowvram_model_memory=0, force_patch_weights=False: load(loaded, budget, force_patch_weights),
    )
    part, _ = small.sample(small.guider(patcher))
    assert patcher.loaded_size() <= budget + 4 * 32 * 32 * 9 and patcher.model.model_lowvram
    assert torch.equal(part, plain)


@contextmanager
def dynamic_vram(monkeypatch):
    """ComfyUI builds and loads models as it does with dynamic VRAM; what it does on a GPU afterwards needs one."""
    import comfy.memory_management
    import comfy.model_patcher

    with monkeypatch.context() as dynamic:
        dynamic.setattr(comfy.memory_management, "aimdo_enabled", True)
        dynamic.setattr(comfy.model_patcher.ModelPatcher, "is_dynamic", lambda patcher: True)
        yield


def test_weights_taken_over_from_the_file_give_the_same(small, plain, unet_file, monkeypatch):
    """As with dynamic VRAM, where ComfyUI keeps the file's own tensors and casts each when it is used."""
    with dynamic_vram(monkeypatch):
        patcher = small.load(unet_file)
    assert torch.equal(small.sample(small.guider(patcher))[0], plain)


def test_half_precision_file_taken_over_keeps_its_type_and_is_cast_when_used(small, plain, tmp_path, monkeypatch):
    tensors = small.patcher.model.diffusion_model.state_dict()
    torch.save({name: tensor.half() for name, tensor in tensors.items()}, tmp_path / "half.pth")
    with dynamic_vram(monkeypatch):
        taken = small.load(tmp_path / "half.pth", dtype=torch.float32)
    copied = small.load(tmp_path / "half.pth", dtype=torch.float32)
    weights = taken.model.diffusion_model.named_parameters()
    assert {w.dtype for name, w in weights if not name.endswith("mix_factor")} == {torch.float16}
    for module in taken.model.modules():
        if hasattr(module, "comfy_cast_weights"):
            module.comfy_cast_weights = True  # which ModelPatcherDynamic sets on a GPU
    assert torch.equal(small.sample(small.guider(taken))[0], small.sample(small.guider(copied))[0])


def test_the_parts_taken_over_from_their_files_give_the_same(small, tiny_checkpoint, monkeypatch):
    checkpoint = small.module("dicetalk.checkpoints.finding").resolve_checkpoint(tiny_checkpoint)
    kind = small.module("nodes.parts").DiceTalkParts
    speech = torch.sin(torch.arange(16000) / 20)

    def told(parts):
        tokens, unconditional = parts.audio_tokens(speech, lambda done, total: None)
        return [tokens, unconditional, *parts.emotion_tokens(parts.priors["happy"], 3)]

    with torch.inference_mode():
        wanted = told(kind(checkpoint))
        with dynamic_vram(monkeypatch):
            parts = kind(checkpoint)
        for tensor, expected in zip(told(parts), wanted, strict=True):
            assert torch.equal(tensor, expected)


@pytest.mark.parametrize("copies", [8, 8 + 3], ids=["plain", "EasyCache"])
def test_comfyui_plans_memory_for_one_window_and_the_clips_latents(small, monkeypatch, copies):
    from comfy_extras.nodes_easycache import EasyCacheNode

    patcher = small.patcher if copies == 8 else EasyCacheNode.execute(small.patcher, 0.1, 0.0, 1.0, False).result[0]
    planned = []
    required = type(small.patcher.model).memory_required

    def memory_required(shape, cond_shapes={}):
        planned.append(shape[0])
        return required(small.patcher.model, shape, cond_shapes)

    monkeypatch.setattr(small.patcher.model, "memory_required", memory_required)
    one = required(small.patcher.model, [1, *LATENT])
    for frames in (7, 300, 7500, 30_000):  # of the last, the latents outweigh a branch
        planned.clear()
        conditions = small.conditions(frames)
        guider = small.guider(patcher, conditions)
        monkeypatch.setattr(guider, "_predict", lambda model, conds, x, *_: [x])  # what is planned is all that counts
        small.sample(guider, steps=1)
        held = copies * 4 * (frames + 25) * conditions.image_latent.numel() / one
        one_row, to_make, to_leave = planned  # room by unloading others, and beside the model's weights
        assert one_row == 1 and to_make == 2 * to_leave
        assert to_leave >= 25 + held and to_make >= 75 + held  # one branch of a window, and three
        assert to_leave < 25 + held + 1 or to_make < 75 + held + 2


def test_ten_minutes_take_as_much_memory_as_three_seconds_beside_latents(small):
    """What windows take, and what the rest of sampling holds, as tensors that live at one time."""
    import comfy.patcher_extension

    patcher = small.patcher.clone()
    sampling, device = small.module("nodes.sampling.sampler"), patcher.load_device.type
    limits = {"cpu": sampling.COPIES}  # most of them ComfyUI's own: the noise, the start, x, its derivative …
    if device != "cpu":
        rest = 0.1  # of what does not grow with the clip
        limits = {device: small.module("nodes.sampling.guider")._CLIP_COPIES + rest, "cpu": sampling.COPIES_BESIDE_GPU}
    trackers, windows = [], []

    def watch(executor, *args, **kwargs):
        windows.append(0)
        if not trackers or len(windows) % 60 != 1:  # the others are alike, and watching takes time
            with _disable_current_modes():
                return executor(*args, **kwargs)
        live = trackers[-1][device]
        before, highest, live.peak = live.now, live.peak, live.now
        result = executor(*args, **kwargs)
        windows[-1] = live.peak - before
        live.peak = highest
        return result

    patcher.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "watch", watch)
    of_window = {}
    for frames in (38, 7500):
        guider = small.guider(patcher, small.conditions(frames), scales=(1.0, 1.0))  # one branch, for speed
        sigmas = small.sigmas(guider, steps=1)
        windows.clear()
        trackers.append({kind: LiveBytes(kind) for kind in limits})
        with ExitStack() as stack:
            for tracker in trackers[-1].values():
                stack.enter_context(tracker)
            small.sample(guider, sigmas=sigmas)
        of_window[frames] = max(windows)
        one = 4 * math.prod(LATENT) * (frames + 25)
        copies = {kind: tracker.peak / one for kind, tracker in trackers[-1].items()}
    assert len(windows) == 300  # of 301, one is dropped whole
    assert of_window[38] > 0 and abs(of_window[7500] / of_window[38] - 1) < 0.05
    assert all(copies[kind] < limit for kind, limit in limits.items()), copies


def test_nothing_stays_after_a_run(small, unet_file):
    def tensors():
        gc.collect()
        # By type, since isinstance would ask weak proxies, whose object may be gone.
        return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())

    counts = []
    for run in range(4):
        patcher = small.load(unet_file).clone()
        conditions = small.conditions(20 + run, seed=run)
        guider = small.guider(patcher, conditions)
        small.sample(guider, steps=1, seed=run)
        left = [weakref.ref(each) for each in (guider, conditions, patcher, patcher.model)]
        del guider, conditions, patcher
        counts.append(tensors())
        assert [each() for each in left] == [None] * 4
    assert counts[1] == counts[2] == counts[3]


def test_a_guider_is_gone_without_waiting_for_the_garbage_collector(small):
    guider = small.guider()
    small.sample(guider, steps=1)
    left = weakref.ref(guider)
    gc.collect()
    gc.disable()
    try:
        del guider
        assert left() is None
    finally:
        gc.enable()
