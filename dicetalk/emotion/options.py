"""How an emotion reads the Emotion Bank."""

import math
import numbers
from dataclasses import dataclass

from ..errors import InputError

MODES = ("full", "nearest", "top-k")
DEFAULT_TOP_K = 8
MAX_TOP_K = 4096
TEMPERATURES = (0.05, 20.0)


@dataclass(frozen=True)
class BankOptions:
    """Which codes of the Emotion Bank an emotion attends to, and how sharply.

    Attributes:
        mode: "full", every code (the published default); "nearest", the one code nearest to the emotion (the
            published retrieval); "top-k", the `top_k` nearest codes. Nearest is by squared distance, as in retrieval,
            so that top-k of 1 is exactly "nearest" and top-k of all codes is exactly "full".
        top_k: number of codes in the mode "top-k", 1 or more; the other modes ignore it.
        temperature: divides the attention's logits, 0.05 to 20; 1 is the published attention, less is sharper.

    Raises:
        InputError: for a value out of its range.
    """

    mode: str = "full"
    top_k: int = DEFAULT_TOP_K
    temperature: float = 1.0

    def __post_init__(self):
        if self.mode not in MODES:
            raise InputError(f"The bank mode must be one of {', '.join(MODES)}, not {self.mode!r}.")
        if self.mode != "top-k":
            object.__setattr__(self, "top_k", DEFAULT_TOP_K)
        whole = isinstance(self.top_k, numbers.Integral) and not isinstance(self.top_k, bool)
        if not whole or not 1 <= self.top_k <= MAX_TOP_K:
            raise InputError(f"The bank's top-k must be a whole number from 1 to {MAX_TOP_K}, not {self.top_k!r}.")
        low, high = TEMPERATURES
        number = isinstance(self.temperature, numbers.Real) and not isinstance(self.temperature, bool)
        if not number or not math.isfinite(self.temperature) or not low <= self.temperature <= high:
            raise InputError(f"The bank's temperature must be {low} to {high:g}, not {self.temperature!r}.")
        object.__setattr__(self, "top_k", int(self.top_k))
        object.__setattr__(self, "temperature", float(self.temperature))

    def code_count(self, codes):
        """How many of a bank's `codes` are attended to."""
        return {"full": codes, "nearest": 1, "top-k": min(self.top_k, codes)}[self.mode]


FULL_BANK = BankOptions()
