"""A training of one small network in one process, kept in a file as it goes."""

import math
import time
from pathlib import Path

import torch

from ..training.loop import NotFinite
from ..training.state import load_state, save_state

EVERY = 120  # seconds from one keeping to the next
LARGEST_GRADIENT = 1.0  # norm


class SmallTraining:
    """An optimizer, a moving average of the weights, and the file from which an ended training continues.

    Args:
        module: what trains: its weights that take gradients at this time.
        rate: the optimizer's.
        ema: decay of the moving average.
        path: the file; None keeps none.
        on_step: called as ``on_step(done, total, loss)``.
        optimizer: class of torch.optim's kind.
    """

    def __init__(self, module, rate, ema, path=None, on_step=None, optimizer=torch.optim.AdamW):
        from diffusers.training_utils import EMAModel

        self.module, self.rate, self.on_step = module, rate, on_step
        self.path = None if path is None else Path(path)
        self.learning = {name: each for name, each in module.named_parameters() if each.requires_grad}
        self.optimizer = optimizer(self.learning.values(), lr=rate, weight_decay=0.01)
        self.average = EMAModel(self.learning.values(), decay=ema, use_ema_warmup=True, power=0.75)
        self._last = time.monotonic()

    def steps(self, total):
        """Yields the numbers of the steps that are left, from 0; the weights are the moving average at the end."""
        done = 0
        if self.path is not None and self.path.is_file():
            done, _ = load_state(self.path, {}, self.learning, self.optimizer, self.average)
        yield from range(done, total)
        self.use_average()
        self.module.eval()

    def use_average(self) -> None:
        """Make the moving average the weights."""
        self.average.copy_to(self.learning.values())

    def step(self, loss, done, total, factor=1.0) -> None:
        """A step of the optimizer, the number `done`, counted from 1, of `total`.

        Args:
            loss: scalar.
            done, total: numbers of steps.
            factor: of the rate.

        Raises:
            NotFinite: the loss is no finite number; the last state is whole.
        """
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NotFinite(f"The loss is not finite in step {done}. The last state is whole.")
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * factor
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.learning.values(), LARGEST_GRADIENT)
        self.optimizer.step()
        self.average.step(self.learning.values())
        if self.path is not None and (done == total or time.monotonic() - self._last >= EVERY):
            self._last = time.monotonic()
            save_state(self.path, {}, self.learning, self.optimizer, self.average, done, [])
        if self.on_step is not None:
            self.on_step(done, total, value)
