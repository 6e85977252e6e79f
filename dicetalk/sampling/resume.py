"""Resuming an interrupted run: its state is kept in a file beside the output until the output is written.

The file is a safetensors file with the latents, and what else the next steps take up from those before; in its metadata
are how many steps they have behind them and all that they depend on. Reading it executes nothing.
"""

import hashlib
import json
import math
import os
import sys
import time
from pathlib import Path

from ..errors import InputError
from ..files import STATE_SUFFIX, require_space, write_errors, written_beside

FORMAT, VERSION = "dicetalk-run", "1"
SECONDS = 10
CARRIED = ("guidance", "solver")  # tensors of the latents' shape beside them, where the next steps need them
_DIGEST = "sha256:"


def state_path(output) -> Path:
    """Where the state of a run that writes `output` is kept."""
    output = Path(output)
    return output.with_name(output.name + STATE_SUFFIX)


def digest(*parts) -> str:
    """A fingerprint of text, bytes and arrays; arrays of other shapes differ."""
    total = hashlib.sha256()
    for part in parts:
        if hasattr(part, "shape"):
            total.update(str(tuple(part.shape)).encode())
        data = part.encode() if isinstance(part, str) else memoryview(part).cast("B")
        total.update(str(len(data)).encode() + b":")
        total.update(data)
    return _DIGEST + total.hexdigest()


class Run:
    """A run of the sampler whose finished steps are not lost.

    Args:
        output: the file that the run makes; the state is kept beside it.
        settings: name → text, number, or a `digest`, of all that the latents depend on; the names are the user's own
            words, since an error shows them.
        computing: settings that matter only while steps are left to do, such as the device.
        steps: of the sampler.
        shape: of the latents.
        seconds: the state is written at most this often (10 when None), and after the last step.
        tensors: how many of that shape a state has at most.
        resumable: says of a number of steps that are done whether a run can continue from there; None for all.
    """

    def __init__(self, output, settings, computing, steps, shape, seconds=None, tensors=1, resumable=None):
        self.path = state_path(output)
        self.settings, self.computing = dict(settings), dict(computing)
        self.steps, self.shape, self._tensors, self._resumable = steps, tuple(shape), tensors, resumable
        self.seconds = SECONDS if seconds is None else seconds
        self.done = self.kept = 0
        self._kept = {}
        self._written = time.monotonic()
        self._warned = False

    @property
    def aside(self):
        """Where the state of an earlier run with the same output goes when this one writes its first."""
        return self.path.with_name(self.path.name + ".old")

    @property
    def finished(self) -> bool:
        """Whether all steps are done, so that only decoding and writing are left."""
        return self.done == self.steps

    def load(self):
        """Resume from the file that an interrupted run left.

        Returns:
            The number of steps done, the latents after them, float32 on the CPU, and {name: tensor of their shape} of
            what else the next steps take up; None when there is no file.

        Raises:
            InputError: the file is damaged, or of a run with other settings; the message names which.
        """
        if not self.path.exists():
            return None
        metadata, kept = self._read()
        record = json.loads(metadata["record"])
        self._check_settings(record)
        whole = metadata["latents"] == digest(*(tensor.numpy() for tensor in kept.values()))
        shaped = all(tuple(tensor.shape) == self.shape for tensor in kept.values())
        if not (whole and shaped and all(tensor.isfinite().all() for tensor in kept.values())):
            raise self._damaged("its contents have changed")
        self.done = self.kept = record["done"]
        return self.done, kept.pop("latents"), kept

    def left_behind(self) -> int | None:
        """The steps that an interrupted run with the same output had done; None without one, 0 if it is damaged."""
        try:
            return json.loads(self._read()[0]["record"])["done"] if self.path.exists() else None
        except InputError:
            return 0

    def require_names(self) -> None:
        """InputError if a folder has the name of the state, and would be in the way only when the work is done."""
        for path in (self.path, self.aside):
            if path.is_dir():
                raise InputError(
                    f"{path} is a folder, and the finished steps are to be kept in a file of that name: move it away, "
                    "or choose another --output."
                )

    def require_space(self) -> None:
        """InputError unless the state, and the next one beside it, will find room on the disk."""
        require_space(self.path.parent, 2 * 4 * self._tensors * math.prod(self.shape))

    def step(self, done, latents, carried={}) -> None:
        """Note that `done` steps are done; the state is written when it is time. A failure is reported once.

        Args:
            carried: {name out of `CARRIED`: tensor} of what else the next steps take up.
        """
        if done < self.steps and self._resumable is not None and not self._resumable(done):
            return
        self.done, self._kept = done, {"latents": latents, **carried}
        if not self.finished and time.monotonic() - self._written < self.seconds:
            return
        try:
            self.keep()
        except InputError as error:
            if not self._warned:
                print(f"Note: {error} This run could not be resumed now.", file=sys.stderr, flush=True)
            self._warned = True

    def keep(self) -> bool:
        """Write the newest state unless it is written already; whether there is one on the disk then."""
        if self.done > self.kept:
            self._write()
            self.kept, self._written = self.done, time.monotonic()
            self._kept = {}  # of all seeds of a best-of, one alone would be needed in the end
        return self.kept > 0

    def rescue(self) -> str:
        """Keep what is done, after something ended the run, and say how to resume; "" when nothing is done."""
        try:
            if not self.keep():
                return ""
        except InputError as error:
            return f"The {self.done} of {self.steps} steps cannot be kept: {error}"
        what = "All sampling steps are" if self.kept == self.steps else f"{self.kept} of {self.steps} steps are"
        return f"{what} kept in {self.path}: the same command with --resume continues from there."

    def remove(self) -> None:
        """The output is written: the state has served, and so has one that was renamed for it."""
        self.path.unlink(missing_ok=True)
        self.aside.unlink(missing_ok=True)

    def _write(self):
        ordered = [name for name in ("latents", *CARRIED) if name in self._kept]
        arrays = {name: self._kept[name].detach().float().cpu().contiguous().numpy() for name in ordered}
        offsets = [0]
        for array in arrays.values():
            offsets.append(offsets[-1] + array.nbytes)
        record = {"done": self.done, "steps": self.steps, "settings": self.settings, "computing": self.computing}
        header = {
            "__metadata__": {
                "format": FORMAT,
                "version": VERSION,
                "record": json.dumps(record),
                "latents": digest(*arrays.values()),
            },
        } | {
            name: {"dtype": "F32", "shape": list(array.shape), "data_offsets": offsets[place : place + 2]}
            for place, (name, array) in enumerate(arrays.items())
        }
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with write_errors(self.path):
            if self.kept == 0 and self.path.exists():  # of an earlier run, which this one did not resume
                os.replace(self.path, self.aside)
            # Not by the safetensors library, which leaves a temporary file of its own behind when it is killed.
            with written_beside(self.path) as part, open(part, "wb") as file:
                file.write(len(text).to_bytes(8, "little") + text)
                for array in arrays.values():
                    file.write(memoryview(array).cast("B"))

    def _read(self):
        """Metadata and tensors, the latents first, of a file that has the form of a state."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                names = set(file.keys())
                if metadata.get("format") != FORMAT or not {"latents"} <= names <= {"latents", *CARRIED}:
                    raise self._damaged("it is something else")
                if metadata.get("version") != VERSION:
                    raise self._damaged("another version of dicetalk wrote it")
                ordered = [name for name in ("latents", *CARRIED) if name in names]
                kinds = {file.get_slice(name).get_dtype() for name in ordered}
                kept = {name: file.get_tensor(name).clone() for name in ordered}  # Windows replaces no mapped file
            record = json.loads(metadata.get("record", ""))
            done, steps = record["done"], record["steps"]
            plain = type(done) is type(steps) is int and 1 <= done <= steps
            if not plain or kinds != {"F32"} or not isinstance(record["settings"], dict):
                raise ValueError("its metadata is wrong")
            if not isinstance(record["computing"], dict) or "latents" not in metadata:
                raise ValueError("its metadata is wrong")
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise self._damaged(" ".join(str(error).split())[:120]) from error
        return metadata, kept

    def _damaged(self, reason):
        return InputError(
            f"{self.path} is not the readable state of an interrupted run ({reason}): delete it, or run without "
            "--resume, to start at the beginning."
        )

    def _check_settings(self, record):
        now, then = dict(self.settings), dict(record["settings"])
        if record["done"] < record["steps"]:
            now |= self.computing
            then |= record["computing"]
        different = [
            _difference(name, then.get(name), now.get(name))
            for name in dict.fromkeys([*now, *then])
            if then.get(name) != now.get(name)
        ]
        if different:
            raise InputError(
                f"{self.path} is of a run with other settings: {'; '.join(different)}. Set them as they were, or run "
                "without --resume to start at the beginning."
            )


def _difference(name, then, now):
    if any(value is None or str(value).startswith(_DIGEST) for value in (then, now)):
        return f"another {name}"
    return f"{name} was {then}, now {now}"
