"""The choices that an emotion offers; light enough for a command line that only checks its arguments."""

import math
import numbers
import reprlib
from dataclasses import dataclass

from ..errors import InputError

NAMES = ("angry", "contempt", "disgusted", "fear", "happy", "neutral", "sad", "surprised")
LEVELS = (1, 2, 3)  # of every emotion but neutral, slight to strong, as in MEAD
# (emotion, level) of MEAD's 22 classes. The released classifier has as many in an order that is not documented; this
# one is a choice: the emotions by name, each with its levels, neutral last.
CLASSES = (*((name, level) for name in NAMES if name != "neutral" for level in LEVELS), ("neutral", 1))
METHODS = ("barycentre", "moments", "tokens")
EASINGS = ("linear", "smooth", "step")
MAX_INTENSITY = 2.0
MAX_STRENGTH = 2.0
FPS = 12.5  # frames a second of the model's video
LONGEST = 48 * 3600.0  # seconds that a clip or a timeline may last, so that wrong times cannot fill the memory
SPACES = ("usage", "tokens", "embedding")
MODES = ("full", "nearest", "top-k")
DEFAULT_TOP_K = 8
MAX_TOP_K = 4096
TEMPERATURES = (0.05, 20.0)
SUFFIX = ".safetensors"


def check_number(value, low, high, what):
    """`value` as a float when it is a finite number from low to high, else InputError that says what it is of."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not low <= value <= high or value == math.inf:
        bounds = f"{low:g} or more" if high == math.inf else f"from {low:g} to {high:g}"
        raise InputError(f"The {what} must be a number {bounds}, not {reprlib.repr(value)}.")
    try:
        return float(value)
    except OverflowError as error:
        raise InputError(f"The {what} is too large.") from error


@dataclass(frozen=True)
class BankOptions:
    """Which codes of the Emotion Bank an emotion attends to, and how sharply.

    Attributes:
        mode: "full", every code (the published default); "nearest", the one code nearest to the emotion (the
            published retrieval); "top-k", the `top_k` nearest codes. Nearest is by squared distance, as in retrieval,
            so that top-k of 1 is exactly "nearest" and top-k of all codes is exactly "full".
        top_k: number of codes in the mode "top-k", 1 or more; the other modes ignore it.
        temperature: divides the attention's logits, from 0.05 to 20; 1 is the published attention, less is sharper.

    Raises:
        InputError: for a value out of its range.
    """

    mode: str = "full"
    top_k: int = DEFAULT_TOP_K
    temperature: float = 1.0

    def __post_init__(self):
        if self.mode not in MODES:
            raise InputError(f"The bank mode must be one of {', '.join(MODES)}, not {reprlib.repr(self.mode)}.")
        if self.mode != "top-k":
            object.__setattr__(self, "top_k", DEFAULT_TOP_K)
        top_k = check_number(self.top_k, 1, MAX_TOP_K, "top-k of the bank")
        if top_k != int(top_k):
            raise InputError(f"The top-k of the bank must be a whole number, not {top_k:g}.")
        object.__setattr__(self, "top_k", int(top_k))
        object.__setattr__(self, "temperature", check_number(self.temperature, *TEMPERATURES, "bank's temperature"))

    def code_count(self, codes):
        """How many of a bank's `codes` are attended to."""
        return {"full": codes, "nearest": 1, "top-k": min(self.top_k, codes)}[self.mode]


FULL_BANK = BankOptions()
