"""Kernels of a window step, and the bytes that they read and write, counted from the operations' shapes."""

import math
from collections import defaultdict
from dataclasses import dataclass, field

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..sampling.counting import DICETALK, STOCK, Workload, build_network

_KINDS = (  # part of an operation's name: its kind
    ("conv", "convolution"),
    ("attention", "attention"),
    ("addmm", "linear"),
    ("mm", "linear"),
    ("group_norm", "group norm"),
    ("layer_norm", "layer norm"),
    ("gelu", "GEGLU"),
    ("silu", "SiLU"),
    ("lerp", "blending"),
    ("cat", "concatenation"),
    ("clone", "copy"),
    ("copy", "copy"),
    ("mul", "product"),
    ("add", "sum"),
)
# Of a window step of 3 × 25 frames at 512×512 in float16: 0.90 of the bytes that version 0.1.0's first build moved.
TARGETS = {"kernels": 2000, "bytes": 0.9 * 491.66e9, "layout_copies": 0, "convolutions_3d": 0}
_NO_KERNEL = ("aten::empty", "aten::detach", "aten::_local_scalar", "aten::scalar_tensor", "aten::lift_fresh")


@dataclass
class Traffic:
    """What a step's operations come to.

    Attributes:
        kernels: operations that compute or move something; views are none.
        bytes: of all that they read and write, weights included.
        layout_copies: copies of a whole activation that change its layout and nothing else.
        convolutions_3d: convolutions in three dimensions.
        kinds: {kind: (kernels, bytes)}.
    """

    kernels: int = 0
    bytes: int = 0
    layout_copies: int = 0
    convolutions_3d: int = 0
    kinds: dict = field(default_factory=dict)


class TrafficCounter(TorchDispatchMode):
    """Counts while it is entered; `traffic` is what came together. It sees what a kernel is asked to do, not how."""

    def __init__(self):
        super().__init__()
        self.traffic, self._kinds = Traffic(), defaultdict(lambda: [0, 0])

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.name()
        if name.startswith(_NO_KERNEL):
            return result
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        written = func._schema.is_mutable
        if not written and (not outputs or all(_is_view_of(output, inputs) for output in outputs)):
            return result
        named = {name: value for name, value in (kwargs or {}).items() if name != "out"}
        read = [leaf for leaf in tree_leaves((args, named)) if isinstance(leaf, torch.Tensor)]
        moved = sum(map(_bytes, read)) + sum(map(_bytes, outputs))
        kind = kind_of(name)
        self.traffic.kernels += 1
        self.traffic.bytes += moved
        self._kinds[kind][0] += 1
        self._kinds[kind][1] += moved
        if kind == "copy" and max(map(torch.Tensor.numel, outputs)) >= 2**20:
            self.traffic.layout_copies += inputs[-1].dtype == outputs[0].dtype
        if kind == "group norm" and not inputs[0].is_contiguous():
            self.traffic.layout_copies += 1
            self.traffic.kernels += 1
            self.traffic.bytes += 2 * _bytes(inputs[0])
        if "convolution" in name and inputs[0].ndim == 5:
            self.traffic.convolutions_3d += 1
        self.traffic.kinds = {kind: tuple(figures) for kind, figures in self._kinds.items()}
        return result


def kind_of(name: str) -> str:
    """The kind of an operation by its name, such as "aten::convolution"; "other" for those that have none here."""
    return next((kind for part, kind in _KINDS if part in name), "other")


def _is_view_of(output, inputs):
    return any(output.untyped_storage()._cdata == each.untyped_storage()._cdata for each in inputs)


def _bytes(tensor):
    """What a kernel has to move of it: what is repeated by a stride of 0 counts once."""
    seen = math.prod(size for size, stride in zip(tensor.shape, tensor.stride()) if stride != 0)
    return seen * tensor.element_size()


def count_traffic(kind: str, workload: Workload) -> Traffic:
    """Count one window step of a network without computing it.

    The operations are the CPU's, whose attention is one kernel as CUDA's is; of CUDA's it is added that its group norm
    copies whatever is not contiguous.
    """
    with FakeTensorMode(), torch.no_grad():
        network, inputs = build_network(kind, workload, "cpu"), workload.inputs(kind, "cpu")
        with TrafficCounter() as counter:
            network(**inputs, return_dict=False)
    return counter.traffic


def count_both(workload: Workload) -> dict[str, Traffic]:
    """`count_traffic` of the stock network and of ours, by their names."""
    return {kind: count_traffic(kind, workload) for kind in (STOCK, DICETALK)}


def table(workload: Workload, counts: dict[str, Traffic]) -> str:
    """What `count_both` gives by kind of operation, as text; beside their targets where those were set."""
    stock, ours = counts[STOCK], counts[DICETALK]
    text = [f"{'counted by kind of operation':30}{'stock':>10}{'GB':>8}{'DICE-Talk':>11}{'GB':>8}"]
    for kind in sorted({*stock.kinds, *ours.kinds}, key=lambda kind: -ours.kinds.get(kind, (0, 0))[1]):
        (a, b), (c, d) = (each.kinds.get(kind, (0, 0)) for each in (stock, ours))
        text.append(f"{kind:30}{a:10}{b / 1e9:8.1f}{c:11}{d / 1e9:8.1f}")
    rows = [
        ("kernels", stock.kernels, ours.kernels, 1, TARGETS["kernels"]),
        ("read and written, GB", stock.bytes, ours.bytes, 1e9, TARGETS["bytes"]),
        ("copies for a layout", stock.layout_copies, ours.layout_copies, 1, TARGETS["layout_copies"]),
        ("convolutions in 3D", stock.convolutions_3d, ours.convolutions_3d, 1, TARGETS["convolutions_3d"]),
    ]
    targeted = (workload.width, workload.height, workload.frames, workload.dtype) == (512, 512, 25, torch.float16)
    for title, a, b, unit, target in rows:
        goal = f"   target {target / unit:.0f}" if targeted and workload.network is None and not workload.tiny else ""
        text.append(f"{title:30}{a / unit:10.0f}{'':8}{b / unit:11.0f}{'':8}{goal}")
    return "\n".join(text)
