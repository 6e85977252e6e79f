"""How much memory tensors take, counted while functions run."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """The largest sum of the sizes of tensors on a type of device, made since it began, that are alive at one time."""

    def __init__(self, device="cpu"):
        super().__init__()
        self.device = device
        self.holders, self.seen, self.now, self.peak = {}, set(), 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            counts = isinstance(tensor, torch.Tensor) and tensor.device.type == self.device
            if counts and id(tensor) not in self.seen:
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
