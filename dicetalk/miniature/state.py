"""The state of a small training in one process: kept as it goes, and continued from."""

import time
from pathlib import Path

import torch

from ..errors import InputError, reason
from ..files import write_errors, written_beside

EVERY = 120  # seconds from one keeping to the next


class Kept:
    """Weights, optimizer and moving average, in a file.

    Args:
        module: what trains.
        optimizer: its optimizer.
        path: the file; None keeps none.
        ema: decay of the moving average.
    """

    def __init__(self, module, optimizer, path, ema):
        from diffusers.training_utils import EMAModel

        self.module, self.optimizer, self.path = module, optimizer, None if path is None else Path(path)
        self.average = EMAModel(module.parameters(), decay=ema, use_ema_warmup=True, power=0.75)
        self._last = time.monotonic()

    def load(self) -> int:
        """Take what the file holds, if it is there. Returns the steps that are done."""
        if self.path is None or not self.path.is_file():
            return 0
        try:
            state = torch.load(self.path, weights_only=True)
            self.module.load_state_dict(state["module"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average.load_state_dict(state["average"])
            return state["step"]
        except Exception as error:  # torch raises many kinds for damaged files
            raise InputError(f"{self.path} cannot be continued from ({reason(error)}): remove it.") from error

    def step(self, done, total) -> None:
        """After a step of the optimizer."""
        self.average.step(self.module.parameters())
        if self.path is None or (done < total and time.monotonic() - self._last < EVERY):
            return
        self._last = time.monotonic()
        state = {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(),
            "step": done,
        }
        with written_beside(self.path) as part, write_errors(self.path):
            torch.save(state, part)

    def finish(self) -> None:
        """Make the moving average the weights."""
        self.average.copy_to(self.module.parameters())
        self.module.eval()
