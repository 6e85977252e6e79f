"""A file of measurements, one JSON line a run, so that a slower build is seen."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import write_errors

NOTED = 1.1  # times as long, or as short, as the run before


def remember(path, kind: str, options: dict[str, Any], report: Any) -> list[str]:
    """Append a run to the file, and compare it with the last one of the same kind, options and device.

    Args:
        path: a file of JSON Lines; made when it is not there.
        kind: of the measurement, such as "step".
        options: those that it was run with.
        report: goes into JSON as it is.

    Returns:
        Lines that say which times have changed, against which build.

    Raises:
        InputError: the file cannot be written, or holds something else.
    """
    path = Path(path)
    run = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "build": build_name(),
        "kind": kind,
        "options": options,
        "report": report,
    }
    before = _last_alike(path, run)
    with write_errors(path), open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(run, allow_nan=False) + "\n")
    if before is None:
        return [f"{path}: the first run of this kind there."]
    now, then = dict(_seconds(report)), dict(_seconds(before["report"]))
    lines = []
    for name in now.keys() & then.keys():
        ratio = now[name] / then[name] if then[name] else 1.0
        if not 1 / NOTED <= ratio <= NOTED:
            word = "slower" if ratio > 1 else "faster"
            times = f"{now[name]:.3g} s, {then[name]:.3g} s with {before['build']}"
            lines.append(f"{word}: {name} took {times} ({ratio:.2f} ×)")
    return sorted(lines) or [f"{path}: no time differs by a tenth from that of {before['build']}."]


def build_name() -> str:
    """The version, and in a clone its revision, with a + when files differ from it."""
    from .. import __version__

    root, revision = Path(__file__).resolve().parents[2], ""
    if (root / ".git").exists():
        command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
        revision = subprocess.run(command, cwd=root, capture_output=True, text=True).stdout.strip()
    return f"{__version__} {revision}".strip()


def _last_alike(path, run):
    if not path.exists():
        return None
    found = None
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            other = json.loads(line)
            alike = all(other[name] == run[name] for name in ("kind", "options"))
            if alike and _device(other["report"]) == _device(run["report"]):
                found = other
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"--history {path} is no file of measurements that this command wrote: name another one."
        ) from error
    return found


def _device(report):
    return report.get("device") if isinstance(report, dict) else None


def _seconds(report, name=""):
    """(name, seconds) of every single time in a report."""
    if not isinstance(report, dict):
        return
    for key, value in report.items():
        if isinstance(value, dict):
            yield from _seconds(value, f"{name}{key} ")
        elif key == "seconds" and isinstance(value, (int, float)):
            yield name.strip() or key, value
