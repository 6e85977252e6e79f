"""What a window step costs, counted from shapes alone: operations, activations, weights."""

import weakref
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ..checkpoints.tiny import UNET_CONFIG as TINY_CONFIG
from ..emotion.options import FPS
from ..model.unet import DiceTalkUNet
from .guidance import BRANCHES

TOKENS = 32
PIXELS_PER_LATENT = 8  # pixels per latent pixel
STOCK, DICETALK = "stock", "dicetalk"
COMPILED, REGIONS = "dicetalk_compiled", "dicetalk_regions"  # of ours, the whole network and each of its blocks


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
        height, width = self.height // PIXELS_PER_LATENT, self.width // PIXELS_PER_LATENT
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

    It sees every tensor that an operation returns, on any device, also where it has no memory; not the
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
def default_dtype(dtype):
    """Tensors that name no type get this one."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def build_network(kind, workload, device):
    network = UNetSpatioTemporalConditionModel if kind == STOCK else DiceTalkUNet
    with default_dtype(workload.dtype), torch.device(device):
        return network(**workload.config).eval().requires_grad_(False)


def count(kind: str, workload: Workload, deep: bool = False) -> Counts:
    """Count one window step without computing it: tensors have shapes here, but no memory.

    Args:
        deep: with the inner levels of our network taken from another step.
    """
    with FakeTensorMode(), torch.no_grad():
        unet = build_network(kind, workload, "cpu")
        inputs = workload.inputs(kind, "cpu")
        if deep:
            batch, frames, _, height, width = inputs["sample"].shape
            inputs["deep"] = torch.empty(batch * frames, unet.deep_channels, height, width, dtype=workload.dtype)
        with FlopCounterMode(display=False, custom_mapping=_UNCOUNTED) as flops, ActivationTracker() as memory:
            unet(**inputs, return_dict=False)
        weight_bytes = sum(parameter.nbytes for parameter in unet.parameters())
    return Counts(flops.get_total_flops(), memory.peak, weight_bytes)
