"""The emotion as a value: a Gaussian in the 256-d emotion space, or a mix of several that meets after the bank.

Values are immutable, know nothing of models, and compare by what they do: names and provenance are labels and take no
part. The released priors share one large component and differ by a small residual, so intensity and mixing act on
residuals from neutral. They also come without a spread (deviation 0): varying one changes nothing until it is given
a deviation (`Emotion.with_deviation`) or is a mix by moments, which keeps the spread between its parts.
"""

import hashlib
import json
import math
import numbers
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from ..errors import InputError
from .options import FULL_BANK, MAX_INTENSITY, MAX_STRENGTH, BankOptions, check_number

DIMENSION = 256
MAX_LABEL = 16384


def check_label(value, what):
    """`value` when it is text that can be shown in one line and is not too long, else InputError."""
    if not isinstance(value, str) or not value.isprintable() or len(value) > MAX_LABEL:
        raise InputError(f"The {what} of an emotion must be one line of text of at most {MAX_LABEL} characters.")
    return value


def _vector(values, what):
    """A float32 copy on the CPU of 256 finite numbers, else InputError."""
    try:
        given = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"The {what} of an emotion must be {DIMENSION} numbers.") from error
    if given.shape != (DIMENSION,) or given.is_complex():
        raise InputError(f"The {what} of an emotion must be {DIMENSION} real numbers, not shape {tuple(given.shape)}.")
    vector = given.detach().to("cpu", torch.float32, copy=True).contiguous()
    if not vector.isfinite().all():
        raise InputError(f"The {what} of an emotion holds numbers that are not finite.")
    return vector


class _Compared:
    """Equality and hash by `digest()`."""

    def digest(self):
        """A string that is equal for values that do the same and stays so between runs: 64 hexadecimal digits."""
        return self._digest

    def __eq__(self, other):
        return self._digest == other._digest if type(other) is type(self) else NotImplemented

    def __hash__(self):
        return hash(self._digest)


@dataclass(frozen=True, eq=False)
class Emotion(_Compared):
    """A Gaussian over the emotion space, and how it reads the Emotion Bank.

    Attributes:
        mean: (256,) float32 on the CPU. Given as a tensor, array or list; copied. Not to be written into.
        deviation: (256,) float32, 0 or more: the Gaussian's standard deviations. Zeros when None, as the released
            priors have none.
        name: what people call it.
        provenance: where it came from, in one line of text.
        bank: which codes of the Emotion Bank it attends to.

    Raises:
        InputError: for anything that is not as above.
    """

    mean: torch.Tensor
    deviation: torch.Tensor = None
    name: str = ""
    provenance: str = ""
    bank: BankOptions = FULL_BANK

    def __post_init__(self):
        object.__setattr__(self, "mean", _vector(self.mean, "mean"))
        deviation = torch.zeros(DIMENSION) if self.deviation is None else _vector(self.deviation, "deviation")
        if (deviation < 0).any():
            raise InputError("The deviation of an emotion must not be negative.")
        object.__setattr__(self, "deviation", deviation)
        check_label(self.name, "name")
        check_label(self.provenance, "provenance")
        if not isinstance(self.bank, BankOptions):
            raise InputError("The bank options of an emotion must be a BankOptions.")

    @cached_property
    def _digest(self):
        bank = f"{self.bank.mode} {self.bank.top_k} {self.bank.temperature!r}"
        content = b"".join((b"emotion", bank.encode(), self.mean.numpy().tobytes(), self.deviation.numpy().tobytes()))
        return hashlib.sha256(content).hexdigest()

    @property
    def parts(self):
        """((1.0, itself),): an emotion is a mix of one."""
        return ((1.0, self),)

    def with_intensity(self, neutral, intensity):
        """The emotion at another intensity: its residual from neutral, scaled; its deviation moves along.

        Args:
            neutral: the Emotion that intensity 0 gives.
            intensity: 0 to 2. 0 is neutral and 1 the emotion itself, both bit for bit; more exaggerates.
        """
        intensity = check_number(intensity, 0.0, MAX_INTENSITY, "intensity")
        if intensity == 1:
            return self
        if intensity == 0:
            return replace(self, mean=neutral.mean, deviation=neutral.deviation)
        mean, deviation = (
            base.double() + intensity * (own.double() - base.double())
            for base, own in ((neutral.mean, self.mean), (neutral.deviation, self.deviation))
        )
        return replace(self, mean=mean, deviation=deviation.clamp(min=0))

    def varied(self, seed, strength=1.0):
        """The emotion with its mean drawn again: mean + strength × deviation × standard normal numbers.

        Args:
            seed: a whole number; the same one gives the same draw.
            strength: 0 to 2. 0 is the emotion itself, bit for bit; 1 draws from its Gaussian.
        """
        strength = check_number(strength, 0.0, MAX_STRENGTH, "strength of the variation")
        if not isinstance(seed, numbers.Integral) or isinstance(seed, bool) or not 0 <= seed < 2**64:
            raise InputError(f"The seed of the variation must be a whole number from 0 to 2^64 - 1, not {seed!r}.")
        if strength == 0:
            return self
        # torch's seeds are 64 bits wide, and read as signed ones.
        generator = torch.Generator().manual_seed(seed - 2**64 if seed >= 2**63 else int(seed))
        noise = torch.randn(DIMENSION, generator=generator)
        return replace(self, mean=self.mean + strength * self.deviation * noise)

    def with_deviation(self, deviation):
        """The emotion with another deviation, (256,), 0 or more."""
        return replace(self, deviation=deviation)

    def with_bank(self, bank=None, **changes):
        """The emotion with other bank options: a BankOptions, or changes to its own, such as `temperature=0.5`."""
        return replace(self, bank=replace(self.bank, **changes) if bank is None else bank)

    def renamed(self, name, provenance=None):
        """The emotion under another name, and another provenance unless that is None."""
        return replace(self, name=name, provenance=self.provenance if provenance is None else provenance)


@dataclass(frozen=True, eq=False)
class TokenMix(_Compared):
    """A mix that meets after the bank: its tokens are the weighted mean of its parts' tokens.

    Made by `mix(..., method="tokens")`, which leaves out the parts without weight and joins equal ones.

    Attributes:
        parts: ((weight, Emotion), ...), in the order of their digests; the weights sum to 1.
        name: what people call it.
        provenance: where it came from, in one line of text.
    """

    parts: tuple
    name: str = ""
    provenance: str = ""

    def __post_init__(self):
        if not all(isinstance(emotion, Emotion) for _, emotion in self.parts):
            raise InputError("The parts of a mix by tokens must be single emotions.")
        parts = [(check_number(weight, 0.0, 1.0, "weight of an emotion in a mix"), part) for weight, part in self.parts]
        if not math.isclose(math.fsum(weight for weight, _ in parts), 1.0, abs_tol=1e-6):
            raise InputError("The weights of a mix must sum to 1.")
        object.__setattr__(self, "parts", tuple(sorted(parts, key=lambda part: part[1].digest())))
        check_label(self.name, "name")
        check_label(self.provenance, "provenance")

    @cached_property
    def _digest(self):
        content = json.dumps(["token mix", [[weight, emotion.digest()] for weight, emotion in self.parts]])
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def mean(self):
        """(256,): the weighted mean of the parts' means, which says where the mix is; its tokens differ."""
        return sum(weight * emotion.mean.double() for weight, emotion in self.parts).float()

    def _each(self, change):
        return replace(self, parts=tuple((weight, change(emotion)) for weight, emotion in self.parts))

    def with_intensity(self, neutral, intensity):
        """The mix with every part at that intensity; see `Emotion.with_intensity`."""
        return self._each(lambda emotion: emotion.with_intensity(neutral, intensity))

    def varied(self, seed, strength=1.0):
        """The mix with every part varied by the same seed; see `Emotion.varied`."""
        return self._each(lambda emotion: emotion.varied(seed, strength))

    def with_bank(self, bank=None, **changes):
        """The mix with other bank options for every part; see `Emotion.with_bank`."""
        return self._each(lambda emotion: emotion.with_bank(bank, **changes))

    def renamed(self, name, provenance=None):
        """The mix under another name, and another provenance unless that is None."""
        return replace(self, name=name, provenance=self.provenance if provenance is None else provenance)
