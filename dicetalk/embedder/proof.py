"""The proof of the training on the synthetic set, and its ablations."""

from dataclasses import replace

from .dataset import HeldClips
from .report import evaluate, fit_temperature
from .synthetic import synthetic_clips
from .training import REVERSAL_ALONE, new_embedder, train

CONFIG = {"layers": 1}  # smaller than for recordings: the set's clips are short
ABLATIONS = {
    "all": {},
    "no contrastive loss": {"contrastive": 0.0},
    "no reversed gradient": {"reversal": 0.0},
    "trained on faces alone": {"use": "visual", "reversal": REVERSAL_ALONE},
    "trained on voices alone": {"use": "audio", "reversal": REVERSAL_ALONE},
}


def prove(config, anchors, synthetic, options, accelerator, titles=("all",), state=None, on_step=None, **saving):
    """Train on the synthetic set and evaluate on its held-out identities, once for each of some ablations.

    Args:
        config: EmbedderConfig.
        anchors: (emotions, 256) priors in the order of config.emotions.
        synthetic: SyntheticOptions.
        options: TrainingOptions of the first row; the others change them as ABLATIONS says.
        accelerator: Hugging Face's Accelerator.
        titles: names in ABLATIONS.
        state, saving: of the first training, see `training.train`.
        on_step: called as `on_step(title, done, total, losses)`.

    Yields:
        (title, embedder, its temperature, result as `report.evaluate` gives it, history) for each; what comes after the
        embedder is None in other processes than the main one.
    """
    drawn, held_out = synthetic_clips(synthetic, config.emotions)
    held_out = HeldClips(held_out)
    raw_probe = None
    for number, title in enumerate(titles):
        changed = replace(options, **ABLATIONS[title])
        learning = _with_a_cue(drawn, changed.use)
        embedder = new_embedder(config, anchors, learning, changed.seed)
        told = None if on_step is None else lambda *step, title=title: on_step(title, *step)
        kept = {"state": state, **saving} if number == 0 else {}
        history = train(embedder, learning, changed, accelerator, on_step=told, **kept)
        if not accelerator.is_main_process:
            yield title, embedder, None, None, None
            continue
        result = evaluate(embedder, held_out, changed.use, raw_probe)
        raw_probe = result["probe_raw"]
        yield title, embedder, fit_temperature(embedder, held_out, changed.use), result, history


def _with_a_cue(drawn, use):
    """Clips that have what is trained with, as in a training on recordings."""
    if use == "both":
        return HeldClips(drawn)  # each has one
    there = drawn[f"{use}_mask"].any(1)
    return HeldClips({name: values[there] for name, values in drawn.items()})
