"""The parts of a UNet that repeat, compiled by `torch.compile` each on its own.

The residual blocks and the transformers are nearly all of the work, and those of one shape share what was compiled. All
shapes are fixed: a clip of any length is sampled in windows of one length, and a window of another length (of a clip
that ends before it, where windows end with the clip) computes uncompiled, so that it never waits for the compiler.
PyTorch's Inductor keeps what it compiled on the disk, where the next process finds it.
"""

import functools
import os
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError, reason
from .frames import FrameResBlock
from .unet import Contexts, DiceTalkTransformer, DiceTalkUNet

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
_SHAPES = 128  # of one kind of region in a process: 22 residual blocks have 14, for each number of branches


class CompiledResBlock(FrameResBlock):
    window: int

    def forward(self, hidden_states: Tensor, temb: Tensor | None = None, image_only_indicator=None) -> Tensor:
        run = _compiled(FrameResBlock) if image_only_indicator.shape[-1] == self.window else FrameResBlock.forward
        return run(self, hidden_states, temb, image_only_indicator)


class CompiledTransformer(DiceTalkTransformer):
    window: int

    def forward(self, hidden_states, encoder_hidden_states: Contexts, image_only_indicator, return_dict=False):
        if image_only_indicator.shape[-1] != self.window:
            return super().forward(hidden_states, encoder_hidden_states, image_only_indicator)
        # One emotion for all frames takes the shape of one for each, which windows behind the clip have.
        emotion = encoder_hidden_states.emotion.expand(-1, self.window, -1, -1).contiguous()
        contexts = replace(encoder_hidden_states, emotion=emotion)
        return _compiled(DiceTalkTransformer)(self, hidden_states, contexts, image_only_indicator)


_COMPILED: dict[type, type] = {FrameResBlock: CompiledResBlock, DiceTalkTransformer: CompiledTransformer}


def compile_regions(unet: DiceTalkUNet, window: int) -> DiceTalkUNet:
    """Let the regions of a UNet compile when they are first called with a shape; returns it.

    What is compiled is kept in the folder that the variable TORCHINDUCTOR_CACHE_DIR names, or else in the user's cache.

    Args:
        window: frames of a window; windows of other lengths compute uncompiled.

    Raises:
        InputError: PyTorch cannot compile for the UNet's device.
    """
    os.environ.setdefault(CACHE_VARIABLE, str(_cache_folder()))
    _require_compiler(unet.device)
    config = torch._dynamo.config
    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # before PyTorch 2.7
    setattr(config, limit, max(getattr(config, limit), _SHAPES))
    for module in unet.modules():
        if type(module) in _COMPILED:
            module.__class__ = _COMPILED[type(module)]
            module.window = window
    return unet


def graphs() -> tuple[int, int]:
    """How many graphs PyTorch has made in this process, and for how many of them the disk had nothing.

    One of them tries whether PyTorch compiles at all.
    """
    counters = torch._dynamo.utils.counters
    return counters["stats"]["unique_graphs"], counters["inductor"]["fxgraph_cache_miss"]


@functools.cache
def _compiled(kind):
    return torch.compile(kind.forward, dynamic=False)


def _cache_folder():
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dicetalk" / "compiled"


def _require_compiler(device):
    try:
        torch.compile(_one_more, dynamic=False)(torch.zeros(8, device=device))
    except Exception as error:  # of many kinds, by what is missing
        raise InputError(
            f"PyTorch cannot compile for {device} here ({reason(error)}): install what it names (a C++ compiler for a "
            "CPU, Triton for a GPU), or leave out compiling."
        ) from error


def _one_more(x):
    return x.sin() + 1
