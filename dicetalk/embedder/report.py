"""How good an embedder is: what is measured on held-out actors, and the report that says so."""

import json
import warnings
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError
from ..files import written_beside
from .dataset import batch_of
from .reader import posterior
from .training import LOSSES

PROBE_STRENGTHS = (0.01, 1.0, 100.0)
_BATCH = 256


@torch.inference_mode()
def embed(embedder, clips, see=True, hear=True):
    """Mean and log-variance side by side, (clips, 512), and which clips have a cue left, (clips,) bool."""
    parts, usable = [], []
    for numbers in torch.arange(len(clips)).split(_BATCH):
        visual, visual_mask, audio, audio_mask, *_ = batch_of(clips, numbers, embedder.config.tokens)
        visual_mask, audio_mask = visual_mask & see, audio_mask & hear
        parts.append(torch.cat(embedder(visual, visual_mask, audio, audio_mask), dim=-1))
        usable.append(visual_mask.any(1) | audio_mask.any(1))
    return torch.cat(parts), torch.cat(usable)


def raw_features(clips, tokens):
    """What goes into the embedder, pooled: mean and deviation over time of every feature, (clips, numbers)."""
    rows = []
    for numbers in torch.arange(len(clips)).split(_BATCH):
        visual, visual_mask, audio, audio_mask, *_ = batch_of(clips, numbers, tokens)
        parts = []
        for values, mask in ((visual, visual_mask), (audio, audio_mask)):
            mask = mask[..., None].float()
            count = mask.sum(1).clamp(min=1)
            mean = (values * mask).sum(1) / count
            parts += [mean, (((values - mean[:, None]) * mask).square().sum(1) / count).sqrt()]
        rows.append(torch.cat(parts, dim=1))
    return torch.cat(rows)


def identity_probe(features, emotions, actors):
    """Accuracy of a linear probe for who acts, from features of clips by held-out actors.

    Logistic regression on standardized features. It is trained on every second clip of each actor and emotion, and
    tested on the others, so that it has seen everyone that it is asked for; its regularization is chosen by
    cross-validation within the former.

    Args:
        features: (clips, numbers).
        emotions, actors: (clips,) whole numbers.

    Returns:
        The share of the tested clips that it names rightly; None where there is one actor alone, or where one of them
        has fewer than three clips to train it with or none to test it with.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, emotions, actors = np.asarray(features, np.float64), np.asarray(emotions), np.asarray(actors)
    learned = _every_second(actors, emotions)
    each = [learned[actors == actor] for actor in np.unique(actors)]
    if len(each) < 2 or any(one.sum() < 3 or one.all() for one in each):
        return None
    probe = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)),
        {"logisticregression__C": PROBE_STRENGTHS},
        cv=StratifiedKFold(3, shuffle=True, random_state=0),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of folds with few clips, and of probes that are still improving
        probe.fit(features[learned], actors[learned])
    return float(probe.score(features[~learned], actors[~learned]))


def _every_second(actors, emotions):
    seen, learned = {}, np.zeros(len(actors), bool)
    for number, key in enumerate(zip(actors.tolist(), emotions.tolist())):
        learned[number] = seen.get(key, 0) % 2 == 0
        seen[key] = seen.get(key, 0) + 1
    return learned


def fit_temperature(embedder, clips, use="both"):
    """The temperature of `reader.posterior` under which the clips' labels are likeliest."""
    values, usable = embed(embedder, clips, use != "audio", use != "visual")
    means, emotions = values[usable, : embedder.anchors.shape[1]], clips.emotions[usable]
    candidates = torch.logspace(-2, 2, 81).tolist()

    def loss(temperature):
        likely = posterior(means.double(), embedder.anchors.double(), temperature)[range(len(emotions)), emotions]
        return float(-likely.clamp(min=1e-12).log().mean())

    return min(candidates, key=loss)


def evaluate(embedder, clips, use="both", raw_probe=None):
    """What is measured on clips by held-out actors.

    Args:
        embedder: EmotionEmbedder in evaluation mode.
        clips: `dataset.Clips`, none of whose actors was trained with.
        use: "both", "visual" or "audio": what the embedder was trained with; the rest is hidden from it.
        raw_probe: the probe's accuracy on the raw features, where it is known already.

    Returns:
        A dictionary for JSON: `accuracy`, `macro_f1` and `confusion` (rows: labelled, columns: read) of the emotion,
        which is the one whose prior is nearest to the mean; `accuracy_face` and `accuracy_voice`, with the other
        modality taken away; `probe`, the accuracy of `identity_probe` on the mean, `probe_raw` that on
        `raw_features`, and `chance`; numbers of clips and actors. Clips whose every cue is hidden count nowhere.

    Raises:
        InputError: no clip has a cue left.
    """
    from sklearn.metrics import confusion_matrix, f1_score

    names, size = list(embedder.config.emotions), embedder.anchors.shape[1]
    ways = {"": (use != "audio", use != "visual"), "_face": (True, False), "_voice": (False, True)}
    result = {"emotions": names}
    for name, (see, hear) in ways.items():
        if name and use != "both":
            continue
        values, usable = embed(embedder, clips, see, hear)
        if not name and not usable.any():
            raise InputError("None of the held-out clips has a cue in its middle, where it is tested.")
        labels, means = clips.emotions[usable].numpy(), values[usable, :size]
        guesses = torch.cdist(means, embedder.anchors).argmin(1).numpy()
        result[f"accuracy{name}"] = float((guesses == labels).mean()) if len(labels) else None
        if not name:
            numbers = range(len(names))
            present = np.unique(labels)
            result["macro_f1"] = float(f1_score(labels, guesses, labels=present, average="macro"))
            result["confusion"] = confusion_matrix(labels, guesses, labels=numbers).tolist()
            actors = clips.actors[usable].numpy()
            result["clips"], result["actors"] = len(labels), len(np.unique(actors))
            result["chance"] = 1 / result["actors"]
            result["probe"] = identity_probe(means, labels, actors)
            if raw_probe is None:
                raw_probe = identity_probe(raw_features(clips, embedder.config.tokens)[usable], labels, actors)
            result["probe_raw"] = raw_probe
    return result


def write_report(folder, title, result, history, facts):
    """Write report.md, report.json, confusion.png and losses.png.

    Args:
        folder: made if missing.
        title: of the report.
        result: as `evaluate` gives it.
        history: as `training.train` gives it.
        facts: name → value, what else to state.
    """
    folder = Path(folder)
    document = {"facts": facts, "result": result, "losses": {"columns": ["step", *LOSSES], "rows": history}}
    _write(folder / "report.json", (json.dumps(document, indent=2) + "\n").encode())
    _write(folder / "confusion.png", _confusion_chart(result))
    _write(folder / "losses.png", _loss_chart(history))
    lines = [f"# {title}", "", "| on held-out actors | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in _rows(result)]
    lines += ["", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items())]
    lines += ["", "![confusion](confusion.png)", "", "![losses](losses.png)", ""]
    _write(folder / "report.md", "\n".join(lines).encode())


def _rows(result):
    yield "clips, actors", f"{result['clips']}, {result['actors']}"
    yield "emotion accuracy", share(result["accuracy"])
    yield "macro F1", f"{result['macro_f1']:.3f}"
    yield "emotion accuracy, face alone", share(result.get("accuracy_face"))
    yield "emotion accuracy, voice alone", share(result.get("accuracy_voice"))
    yield "identity probe on the embedding", probe(result["probe"], result["chance"])
    yield "identity probe on the raw features", probe(result["probe_raw"], result["chance"])


def share(value):
    """0.912 → "91.2 %"; a dash for None."""
    return "-" if value is None else f"{value:.1%}".replace("%", " %")


def probe(value, chance):
    """A probe's accuracy beside chance."""
    return "-" if value is None else f"{share(value)}, {value / chance:.2f} × chance"


def table(results):
    """The ablations' table in markdown: title → results, one for each seed. Several are shown by mean and range."""
    heads = ["", "emotion accuracy", "macro F1", "face alone", "voice alone", "identity probe", "× chance"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for title, each in results.items():
        forms = {"accuracy": share, "macro_f1": "{:.3f}".format, "accuracy_face": share, "accuracy_voice": share}
        cells = [_spread([result.get(name) for result in each], form) for name, form in forms.items()]
        lines.append("| " + " | ".join([title, *cells, *_probes(each, "probe")]) + " |")
    raw = _probes(next(iter(results.values())), "probe_raw")
    lines.append("| " + " | ".join(["raw features", "-", "-", "-", "-", *raw]) + " |")
    return "\n".join(lines)


def _probes(results, name):
    """A probe's accuracy, and how many times chance that is; dashes where there were too few clips for a probe."""
    probes = [result[name] for result in results]
    times = [None if result[name] is None else result[name] / result["chance"] for result in results]
    return _spread(probes, share), _spread(times, "{:.2f}".format)


def _spread(values, form):
    """A number as a text; of several, their mean and range; a dash where there is none."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = form(sum(known) / len(known))
    return mean if len(values) == 1 else f"{mean} ({form(min(known))} to {form(max(known))})"


def _write(path, content):
    with written_beside(path) as part:
        part.write_bytes(content)


def _confusion_chart(result):
    figure, axes = _figure(5.5, 5)
    counts = np.array(result["confusion"], float)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(shares.shape):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{shares[row, column]:.2f}", ha="center", va="center", color=colour, fontsize=7)
    axes.set_xticks(range(len(counts)), result["emotions"], rotation=45, ha="right")
    axes.set_yticks(range(len(counts)), result["emotions"])
    axes.set(xlabel="read", ylabel="labelled", title="Held-out actors, share of the labelled")
    return _png(figure)


def _loss_chart(history):
    figure, axes = _figure(6, 4)
    columns = np.array(history, float).reshape(len(history), 1 + len(LOSSES)).T
    for name, values in zip(LOSSES[1:], columns[2:]):
        axes.plot(columns[0], values, label=name)
    axes.set(xlabel="step", ylabel="loss", title="Training")
    axes.legend()
    return _png(figure)


def _figure(width, height):
    from matplotlib.figure import Figure  # no pyplot: it would look for a display

    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    return figure, figure.add_subplot()


def _png(figure):
    import io

    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()
