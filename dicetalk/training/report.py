"""What is written about a training: a log as it goes, and a report with curves at its end."""

import json
from pathlib import Path

from ..files import written_beside
from .objective import LOSSES

LOG_FILE, REPORT_FILE, CURVES_FILE = "losses.jsonl", "report.md", "losses.png"


def write_log(folder, history, losses=LOSSES):
    """losses.jsonl: a line for each step, {"step": 1, "total": …}."""
    lines = [json.dumps(dict(zip(("step", *losses), row))) for row in history]
    with written_beside(Path(folder) / LOG_FILE) as part:
        part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_report(folder, history, facts, losses=LOSSES):
    """report.md with the curves losses.png beside it, and the log.

    Args:
        folder: of the report.
        history: [[step, *losses], ...] as `loop.train` gives it.
        facts: name → what there is to say of the run.
        losses: the names of the losses.
    """
    folder = Path(folder)
    write_log(folder, history, losses)
    lines = ["# Training", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {str(value).replace('|', '/')} |" for name, value in facts.items()]
    tenth = max(1, len(history) // 10)
    first, last = _means(history[:tenth]), _means(history[-tenth:])
    lines += ["", f"| loss | first {tenth} steps | last {tenth} steps |", "|---|---|---|"]
    lines += [f"| {name} | {before:.4g} | {after:.4g} |" for name, before, after in zip(losses, first, last)]
    lines += ["", f"![losses]({CURVES_FILE})", "", f"Every step is in {LOG_FILE}.", ""]
    with written_beside(folder / CURVES_FILE) as part:
        part.write_bytes(_curves(history, losses))
    with written_beside(folder / REPORT_FILE) as part:
        part.write_text("\n".join(lines), encoding="utf-8")


def _means(rows):
    return [sum(column) / len(rows) for column in list(zip(*rows))[1:]]


def _curves(history, losses):
    """A PNG: each loss over the steps, pale, and its moving average."""
    import io

    from matplotlib.figure import Figure  # no pyplot: it would look for a display

    figure = Figure(figsize=(9, 3), layout="constrained", dpi=110)
    columns = list(zip(*history))
    width = max(1, len(history) // 25)
    for axes, name, values in zip(figure.subplots(1, len(losses) - 1, squeeze=False)[0], losses[1:], columns[2:]):
        smooth = [sum(values[max(0, n - width + 1) : n + 1]) / min(width, n + 1) for n in range(len(values))]
        axes.plot(columns[0], values, color="C0", alpha=0.25, linewidth=0.8)
        axes.plot(columns[0], smooth, color="C0")
        axes.set(xlabel="step", title=name)
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()
