"""What one window step costs, beside diffusers' stock Stable Video Diffusion UNet on the same weights."""

import gc
import math
import os
import platform
import statistics
import time
import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from .errors import InputError
from .memory import free_memory
from .sampling import BRANCHES, FPS, window_plan
from .tiny import UNET_CONFIG as TINY_CONFIG
from .unet import DiceTalkUNet

STEPS = 25
CLIP_SECONDS = 10
TOKENS = 32
LATENT_SCALE = 8  # pixels per latent pixel
STOCK, DICETALK, COMPILED = "stock", "dicetalk", "dicetalk_compiled"


@dataclass(frozen=True)
class Workload:
    """One window step.

    Attributes:
        width, height: of the pictures, pixels, multiples of 64.
        frames: of the window, in each of the three branches.
        dtype: of weights and activations.
        tiny: the network of `dicetalk tiny` in place of the released size.
        network: arguments of another network.
    """

    width: int = 512
    height: int = 512
    frames: int = 25
    dtype: torch.dtype = torch.float32
    tiny: bool = False
    network: dict | None = None

    @property
    def config(self) -> dict:
        return self.network or (TINY_CONFIG if self.tiny else {})

    def inputs(self, kind: str, device) -> dict[str, Tensor]:
        """Arguments of the network of this kind, random, on the device."""

        def normal(*shape, dtype=self.dtype):
            return torch.randn(shape, dtype=dtype, device=device)

        batch, frames, dim = len(BRANCHES), self.frames, self.config.get("cross_attention_dim", 1024)
        height, width = self.height // LATENT_SCALE, self.width // LATENT_SCALE
        common = {
            "sample": normal(batch, frames, 8, height, width),
            "timestep": torch.tensor(1.0, device=device),
            "added_time_ids": torch.tensor([[FPS, 8.0, 16.0]] * batch, device=device),
        }
        if kind == STOCK:
            return common | {"encoder_hidden_states": normal(batch, 1, dim)}
        channels = self.config.get("block_out_channels", (320,))[0]
        return common | {
            "encoder_hidden_states": normal(batch, 1, 1, dim),
            "audio_tokens": normal(batch, frames, TOKENS, dim),
            "emotion_tokens": normal(batch, 1, TOKENS, dim),
            "pose_features": normal(1, 1, channels, height, width),
            "face_mask": torch.ones(1, 1, self.height, self.width, dtype=self.dtype, device=device),
        }


@dataclass(frozen=True)
class Counts:
    """What follows from shapes alone: operations, and the largest sum of living activations, weights not counted."""

    flops: int
    peak_bytes: int
    weight_bytes: int


class ActivationTracker(TorchDispatchMode):
    """Adds up the storages that operations allocate, until they are freed: `peak` is the most at any time, in bytes.

    It sees every tensor that an operation returns, on any device, also where no memory stands behind it; not the
    scratch memory that a kernel takes and gives back inside one operation. Storages that existed before, such as
    weights and inputs, are not counted.
    """

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        known = {_storage(tensor)._cdata for tensor in _tensors((args, kwargs))}
        for tensor in _tensors(result):
            storage = _storage(tensor)
            if storage._cdata not in known:
                known.add(storage._cdata)
                self.live += storage.nbytes()
                weakref.finalize(storage, self._free, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return result

    def _free(self, size):
        self.live -= size


def _tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _storage(tensor):
    return tensor.untyped_storage()


def _attention_flops(query, key, value, *args, out_shape=None, **kwargs):
    """Both matrix products of PyTorch's attention on the CPU, which its own counter leaves out."""
    batch, heads, queries, width = query
    return 2 * batch * heads * queries * key[2] * (width + value[3])


_UNCOUNTED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}


@contextmanager
def _default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _network(kind, workload, device):
    network = UNetSpatioTemporalConditionModel if kind == STOCK else DiceTalkUNet
    with _default_dtype(workload.dtype), torch.device(device):
        return network(**workload.config).eval().requires_grad_(False)


def count(kind: str, workload: Workload) -> Counts:
    """Count one window step without computing it: tensors have shapes here, but no memory."""
    with FakeTensorMode(), torch.no_grad():
        unet = _network(kind, workload, "cpu")
        inputs = workload.inputs(kind, "cpu")
        with FlopCounterMode(display=False, custom_mapping=_UNCOUNTED) as flops, ActivationTracker() as memory:
            unet(**inputs, return_dict=False)
        weight_bytes = sum(parameter.nbytes for parameter in unet.parameters())
    return Counts(flops.get_total_flops(), memory.peak, weight_bytes)


def build(workload: Workload, device) -> dict[str, torch.nn.Module]:
    """Both networks on the device, with random weights that they share."""
    unet = _network(DICETALK, workload, "meta").to_empty(device=device)
    for name, parameter in unet.named_parameters():
        if parameter.ndim > 1:
            bound = math.sqrt(3 / parameter[0].numel())
            parameter.uniform_(-bound, bound)
        elif name.endswith("mix_factor"):
            parameter.fill_(0.5)
        else:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    stock = _network(STOCK, workload, "meta")
    missing = stock.load_state_dict(unet.state_dict(), strict=False, assign=True).missing_keys
    assert not missing, missing
    return {STOCK: stock.requires_grad_(False), DICETALK: unet}


def matrix_rate(device, dtype, repeats=5) -> float:
    """Operations per second of a large matrix product; the median of some."""
    size = 8192 if torch.device(device).type == "cuda" else 2048
    a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    a @ b
    return 2 * size**3 / statistics.median(timed(lambda: a @ b, device) for _ in range(repeats))


def timed(function, device) -> float:
    """Seconds until the device has done it."""
    _synchronize(device)
    start = time.perf_counter()
    function()
    _synchronize(device)
    return time.perf_counter() - start


def _synchronize(device):
    backend = getattr(torch, torch.device(device).type, None)
    if hasattr(backend, "synchronize"):
        backend.synchronize()


def what_fits(workload: Workload, share: float) -> str:
    """Options for a step of at most this share of the activations, which grow as frames × pixels do."""
    options = []
    frames = math.floor(workload.frames * share)
    if frames >= 1:
        options.append(f"--frames {frames}")
    width, height = (math.floor(side * math.sqrt(share)) // 64 * 64 for side in (workload.width, workload.height))
    if min(width, height) >= 64:
        options.append(f"--size {width}" if width == height else f"--size {width}x{height}")
    if workload.dtype == torch.float32 and share >= 0.5:
        options.append("--dtype float16 or bfloat16")
    return "; ".join(options) or "only --tiny"


def check_memory(workload: Workload, counts: dict[str, Counts], free: int | None) -> None:
    """Raise InputError, saying what would fit, when the step would not."""
    weights, peak = counts[DICETALK].weight_bytes, max(each.peak_bytes for each in counts.values())
    if free is None or weights + 1.1 * peak <= free:
        return
    share = (free - weights) / (1.1 * peak)
    fits = what_fits(workload, share) if share > 0 else "a narrower --dtype, or --tiny"
    raise InputError(
        f"This step needs {(weights + 1.1 * peak) / 1e9:.1f} GB ({weights / 1e9:.1f} of them weights) and "
        f"{free / 1e9:.1f} GB are free. What would fit: {fits}."
    )


def measure(networks, workload, device, repeats, on_run=lambda: None) -> dict[str, dict]:
    """Time each network on the workload, warmed, by turns so that all meet the same other load.

    Returns:
        {kind: {"seconds": [...], "peak_bytes": int or None}}; peaks are measured on CUDA only.
    """
    inputs = {kind: workload.inputs(kind, device) for kind in networks}
    on_cuda = torch.device(device).type == "cuda"
    measured = {kind: {"seconds": [], "peak_bytes": None} for kind in networks}
    for repeat in range(1 + repeats):
        for kind, network in networks.items():
            gc.collect()
            if on_cuda:
                before = torch.cuda.memory_allocated(device)
                torch.cuda.reset_peak_memory_stats(device)
            seconds = timed(partial(network, **inputs[kind], return_dict=False), device)
            if repeat > 0:
                measured[kind]["seconds"].append(seconds)
                if on_cuda:
                    peak = torch.cuda.max_memory_allocated(device) - before
                    measured[kind]["peak_bytes"] = max(peak, measured[kind]["peak_bytes"] or 0)
            on_run()
    return measured


def windows_of_clip(seconds: float, frames: int) -> int:
    """Windows denoised for a clip of this length, over all steps."""
    return sum(len(step) for step in window_plan(round(seconds * FPS), STEPS, window=frames))


def bench(workload, device, repeats=3, compiled=False, on_counted=lambda counts, rate: None, on_run=lambda: None):
    """Count, then time, one window step of both networks.

    Args:
        repeats: timed runs of each network after one that warms it; 0 counts only.
        compiled: time `torch.compile`'s version of ours too.
        on_counted: called with the counts of each network and the matrix rate, before anything long begins.
        on_run: called after each run of a network.

    Returns:
        A dict that goes into JSON as it is; times in seconds, sizes in bytes, None for what was not measured.

    Raises:
        InputError: the memory does not suffice.
    """
    counts = {kind: count(kind, workload) for kind in (STOCK, DICETALK)}
    if repeats:
        check_memory(workload, counts, free_memory(device))
    rate = matrix_rate(device, workload.dtype) if repeats else None
    on_counted(counts, rate)

    measured = {}
    if repeats:
        try:
            with torch.inference_mode(not compiled), torch.no_grad():
                networks = build(workload, device)
                if compiled:
                    networks[COMPILED] = torch.compile(networks[DICETALK], fullgraph=True)
                measured = measure(networks, workload, device, repeats, on_run)
        except torch.OutOfMemoryError:
            raise InputError(
                f"The device ran out of memory at {workload.width}×{workload.height} × {workload.frames} frames. "
                f"What might fit: {what_fits(workload, 0.5)}."
            ) from None
    report = {
        "device": device_name(device),
        "torch": torch.__version__,
        "threads": torch.get_num_threads() if torch.device(device).type == "cpu" else None,
        "dtype": str(workload.dtype).removeprefix("torch."),
        "width": workload.width,
        "height": workload.height,
        "branches": len(BRANCHES),
        "frames": workload.frames,
        "tiny": workload.tiny,
        "repeats": repeats,
        "steps": STEPS,
        "matrix_flops_per_second": rate,
        "weight_bytes": counts[DICETALK].weight_bytes,
        "networks": {},
    }
    for kind in (STOCK, DICETALK) + (COMPILED,) * compiled:
        report["networks"][kind] = _figures(kind, workload, counts.get(kind), measured.get(kind), counts, rate)
    report["ratios"] = {
        kind: {
            name: _ratio(figures[name], report["networks"][STOCK][name])
            for name in ("seconds", "flops", "peak_activation_bytes", "counted_activation_bytes")
        }
        for kind, figures in report["networks"].items()
        if kind != STOCK
    }
    return report


def _figures(kind, workload, counted, measured, counts, rate):
    flops = counts[DICETALK if kind == COMPILED else kind].flops
    seconds = statistics.median(measured["seconds"]) if measured else None
    return {
        "seconds": seconds,
        "all_seconds": measured["seconds"] if measured else [],
        "flops": flops,
        "matrix_rate_share": flops / seconds / rate if seconds else None,
        "peak_activation_bytes": measured["peak_bytes"] if measured else None,
        "counted_activation_bytes": counted.peak_bytes if counted else None,
        "seconds_per_video_second": seconds and seconds * STEPS * FPS / workload.frames,
        "clip_seconds": CLIP_SECONDS,
        "seconds_per_clip": seconds and seconds * windows_of_clip(CLIP_SECONDS, workload.frames),
    }


def _ratio(value, base):
    return value / base if value is not None and base else None


def device_name(device) -> str:
    """What a reader knows the device by."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu" and os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        if names:
            return f"{names[0]}, {torch.get_num_threads()} threads"
    return f"{device} ({platform.processor() or platform.machine()})"
