"""What the MODEL and the GUIDER hold in memory inside ComfyUI, with its real classes, on the CPU."""

import gc
import weakref

import pytest
import torch
from small_model import LATENT, SmallModel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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
    patcher = small.load(unet_file, **options)
    weights = dict(patcher.model.diffusion_model.named_parameters())
    wanted = options.get("dtype", torch.float32)
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


def test_weights_taken_over_from_the_file_give_the_same(small, plain, unet_file, monkeypatch):
    """As with dynamic VRAM, where ComfyUI keeps the file's own tensors and casts each when it is used."""
    import comfy.model_patcher

    with monkeypatch.context() as dynamic:
        dynamic.setattr(comfy.model_patcher.ModelPatcher, "is_dynamic", lambda patcher: True)
        patcher = small.load(unet_file)
    assert torch.equal(small.sample(small.guider(patcher))[0], plain)


def test_half_precision_file_taken_over_keeps_its_type_and_is_cast_when_used(small, plain, tmp_path, monkeypatch):
    import comfy.model_patcher

    tensors = small.patcher.model.diffusion_model.state_dict()
    torch.save({name: tensor.half() for name, tensor in tensors.items()}, tmp_path / "half.pth")
    with monkeypatch.context() as dynamic:
        dynamic.setattr(comfy.model_patcher.ModelPatcher, "is_dynamic", lambda patcher: True)
        taken = small.load(tmp_path / "half.pth", dtype=torch.float32)
    copied = small.load(tmp_path / "half.pth", dtype=torch.float32)
    weights = taken.model.diffusion_model.named_parameters()
    assert {w.dtype for name, w in weights if not name.endswith("mix_factor")} == {torch.float16}
    for module in taken.model.modules():
        if hasattr(module, "comfy_cast_weights"):
            module.comfy_cast_weights = True  # which ModelPatcherDynamic sets on a GPU
    assert torch.equal(small.sample(small.guider(taken))[0], small.sample(small.guider(copied))[0])


def test_comfyui_plans_memory_for_one_window_whatever_the_length(small, monkeypatch):
    planned = []
    required = type(small.patcher.model).memory_required

    def memory_required(shape, cond_shapes={}):
        planned.append(shape[0])
        return required(small.patcher.model, shape, cond_shapes)

    monkeypatch.setattr(small.patcher.model, "memory_required", memory_required)
    for frames in (7, 300):
        small.sample(small.guider(conditions=small.conditions(frames)), steps=1)
    assert max(planned) == 76  # three branches of 25, rounded up to an even number


class LiveBytes(TorchDispatchMode):
    """The largest sum of the sizes of tensors made since it began that are alive at one time."""

    def __init__(self):
        super().__init__()
        self.holders, self.seen, self.now, self.peak = {}, set(), 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and id(tensor) not in self.seen:
                self._hold(tensor)
        self.peak = max(self.peak, self.now)
        return result

    def _hold(self, tensor):
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if key not in self.holders:
            self.holders[key] = 0
            self.now += size
        self.holders[key] += 1
        self.seen.add(id(tensor))
        weakref.finalize(tensor, self._release, id(tensor), key, size)

    def _release(self, name, key, size):
        self.seen.discard(name)
        self.holders[key] -= 1
        if self.holders[key] == 0:
            del self.holders[key]
            self.now -= size


def test_sampling_memory_grows_with_the_clip_by_its_latents_alone(small):
    small.sample(steps=1)
    peaks = {}
    for frames in (38, 1000):
        guider = small.guider(conditions=small.conditions(frames))
        sigmas = small.sigmas(guider, steps=1)
        with LiveBytes() as live:
            small.sample(guider, sigmas=sigmas)
        peaks[frames] = live.peak
    latent_bytes = 4 * LATENT[0] * LATENT[1] * LATENT[2]
    copies = (peaks[1000] - peaks[38]) / (1000 - 38) / latent_bytes
    assert 1 < copies < 10
    beside_latents = {frames: peak - copies * latent_bytes * (frames + 25) for frames, peak in peaks.items()}
    assert beside_latents[38] > 30 * latent_bytes * 75  # so that activations of more frames would be noticed


def test_nothing_stays_after_a_run(small, unet_file):
    def tensors():
        gc.collect()
        return sum(isinstance(each, torch.Tensor) for each in gc.get_objects())

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
