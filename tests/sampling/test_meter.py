"""The order of the classifier's classes, the meter, and the best of several seeds."""

import contextlib
import errno
import json
import shutil

import numpy as np
import pytest
import torch
from following import ORDER, write_following_checkpoint
from PIL import Image
from small_jobs import job as small_job
from small_jobs import left_over, pictures

from dicetalk.batch.engine import DONE, Engine
from dicetalk.checkpoints.classes import (
    FILE,
    KNOWN_FROM_TRAINING,
    ClassOrder,
    load_classifier,
    load_order,
    order_file,
    save_order,
)
from dicetalk.checkpoints.convert import convert_checkpoint
from dicetalk.checkpoints.finding import resolve_checkpoint
from dicetalk.checkpoints.priors import load_priors
from dicetalk.cli import main
from dicetalk.emotion.mixing import mix
from dicetalk.emotion.options import CLASSES, NAMES
from dicetalk.emotion.parsing import parse_emotion
from dicetalk.errors import InputError
from dicetalk.job import Job
from dicetalk.media.container import read_metadata
from dicetalk.rendering import render
from dicetalk.sampling.classes import order_from_scores
from dicetalk.sampling.meter import Meter, as_asked, asked_shares


def job(*args, **changes):
    """The face is looked for: with another box the classifier of `following` does not read what it was taught."""
    return small_job(*args, **{"face": None} | changes)


@pytest.fixture(scope="module")
def following(tiny_checkpoint, tmp_path_factory):
    """A checkpoint whose classifier reads emotions in ORDER, which is not stored. Not to be written into."""
    return write_following_checkpoint(tiny_checkpoint, tmp_path_factory.mktemp("following") / "checkpoint")


@pytest.fixture(scope="module")
def metered(following, tmp_path_factory):
    """The same, with its order stored by the command; the second of a pair is what the command printed."""
    folder = tmp_path_factory.mktemp("metered") / "checkpoint"
    shutil.copytree(following, folder)
    checkpoint = resolve_checkpoint(folder)
    save_order(ClassOrder(ORDER, (1.0,) * 22, "measured"), folder, load_classifier(checkpoint))
    return folder


def classes(*arguments):
    return main(["emotion", "classes", "--size", "64", "--draws", "3", "--device", "cpu", *map(str, arguments)])


def test_the_order_is_found_and_stored(following, tmp_path, capsys):
    folder = tmp_path / "checkpoint"
    shutil.copytree(following, folder)
    assert classes("--checkpoint", folder) == 0
    out = capsys.readouterr().out
    checkpoint = resolve_checkpoint(folder)
    order = load_order(checkpoint, load_classifier(checkpoint))
    assert order.classes == ORDER and order.source == "measured" and np.mean(order.sureness) > 0.9
    assert [tuple(line.split()[1:3]) for line in out.splitlines()[1:23]] == [
        (name, str(level)) for name, level in ORDER
    ]
    assert str(folder / FILE) in out

    half = tmp_path / "half"
    convert_checkpoint(checkpoint, half, "float16")
    converted = resolve_checkpoint(half)
    assert load_order(converted, load_classifier(converted)) == order  # the weights are rounded alike


def test_an_order_from_training_is_checked_and_kept(following, tmp_path, capsys):
    folder = tmp_path / "checkpoint"
    shutil.copytree(following, folder)
    save_order(KNOWN_FROM_TRAINING, folder, load_classifier(resolve_checkpoint(folder)))
    before = (folder / FILE).read_bytes()
    assert classes("--checkpoint", folder) == 0
    same = sum(one == other for one, other in zip(ORDER, CLASSES))
    assert f"the same level too in {same}" in capsys.readouterr().out and same < 22
    assert (folder / FILE).read_bytes() == before


def test_an_untrained_classifier_is_refused(tiny_checkpoint, tmp_path, capsys):
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, folder)
    assert classes("--checkpoint", folder) == 2
    error = capsys.readouterr().err
    assert "does not distinguish the emotions" in error and "emo_model" in error and "untrained" in error
    assert not (folder / FILE).exists()


@pytest.mark.parametrize("loud", [1, 30])
def test_random_answers_are_refused_but_for_luck(loud):
    taken = 0
    for seed in range(20):
        logits = loud * np.random.default_rng(seed).normal(size=(1, 22, 22))
        with contextlib.suppress(InputError):
            order_from_scores(torch.from_numpy(logits).log_softmax(-1).numpy())
            taken += 1
    assert taken <= 1


def test_levels_are_ordered_by_strength_and_doubt_is_stated():
    """Emotions that are half taken for one another, and levels for their neighbours."""
    order = tuple(np.random.default_rng(5).permutation(22))
    scores = np.zeros((1, 22, 22))
    for row, (name, level) in enumerate(CLASSES):
        for column, (other, far) in enumerate(CLASSES):
            scores[0, row, order.index(column)] = (3.0 if name == other else 0.0) - 0.5 * abs(level - far) * (
                name == other
            )
    found = order_from_scores(torch.from_numpy(scores).log_softmax(-1).numpy())
    assert found.order.classes == tuple(CLASSES[column] for column in order)
    assert 0.5 < found.sureness < 0.8 and all(1 / 3 < sure <= 1 for sure in found.levels)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--draws", "0"], ["--draws is 0"]),
        (["--size", "9"], ["--size is 9"]),
        (["--portrait", "nowhere.jpg"], ["nowhere.jpg"]),
        (["--checkpoint", "/nowhere"], ["/nowhere"]),
    ],
)
def test_bad_arguments_of_the_command(tiny_checkpoint, arguments, words, capsys):
    assert classes("--checkpoint", tiny_checkpoint, *arguments) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words) and len(error.strip().splitlines()) == 1


def test_the_order_of_other_weights_is_not_used(metered, tiny_checkpoint, tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, folder)
    shutil.copy(metered / FILE, folder / FILE)
    with pytest.raises(InputError, match="emotion classes --checkpoint"):
        Meter.of(resolve_checkpoint(folder))


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record | {"format": "else"},
        lambda record: record | {"classes": record["classes"][1:]},
        lambda record: record | {"classes": [*record["classes"][1:], record["classes"][1]]},
        lambda record: record | {"classes": [["happy", 1, 7.0]] * 22},
        lambda record: record | {"source": "a guess"},
        lambda record: {},
        lambda record: "text",
    ],
)
def test_a_damaged_order_is_an_error(metered, tmp_path, change):
    folder = tmp_path / "checkpoint"
    shutil.copytree(metered, folder)
    (folder / FILE).write_text(json.dumps(change(json.loads((folder / FILE).read_text()))))
    checkpoint = resolve_checkpoint(folder)
    with pytest.raises(InputError, match=FILE):
        load_order(checkpoint, load_classifier(checkpoint))


def test_what_is_asked_for_in_each_frame(tiny_checkpoint):
    priors = load_priors(resolve_checkpoint(tiny_checkpoint).folder("emotions"))

    def asked(emotion):
        return asked_shares(emotion, priors, 3)[0]

    eye = np.eye(8)
    happy, sad, neutral = (NAMES.index(name) for name in ("happy", "sad", "neutral"))
    assert np.allclose(asked(priors["happy"]), eye[happy], atol=1e-3)
    assert np.allclose(asked(priors["happy"].with_intensity(priors["neutral"], 1.5)), eye[happy], atol=1e-3)
    half = asked(priors["happy"].with_intensity(priors["neutral"], 0.5))
    assert np.allclose(half, (eye[happy] + eye[neutral]) / 2, atol=1e-3)
    mixed = asked(mix([priors["sad"], priors["happy"]], [3, 1]))
    assert np.allclose(mixed, 0.75 * eye[sad] + 0.25 * eye[happy], atol=1e-3)
    turning = asked_shares(parse_emotion("0s neutral; 0.08s happy step", priors), priors, 3)
    assert np.allclose(turning, eye[[neutral, happy, happy]], atol=1e-3)
    assert as_asked(turning, turning) == pytest.approx(1)
    assert as_asked(turning, eye[[neutral] * 3]) == pytest.approx(1 / 3, abs=1e-3)


@pytest.mark.parametrize("emotion", ["happy", "sad", "0s angry; 0.16s surprised step"])
def test_the_meter_reads_what_the_network_was_given(metered, tmp_path, emotion):
    said = []
    clip = job(tmp_path, metered, "a.mp4", emotion=emotion, meter=True, length=0.32)
    made = render(clip, say=said.append)
    read, asked = made.sampled.read, made.sampled.asked
    assert read.shape == asked.shape == (4, 8) and np.allclose(read.sum(1), 1)
    assert (read.argmax(1) == asked.argmax(1)).mean() >= 0.75
    first = emotion.split()[1] if " " in emotion else emotion
    assert any(f"{first.strip(';')} " in line and "as asked" in line for line in said)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.meter.png", "a.mp4"]
    with Image.open(tmp_path / "a.meter.png") as chart:
        assert chart.format == "PNG" and chart.width > 900
    metadata = json.loads(read_metadata(tmp_path / "a.mp4")["dicetalk"])
    assert metadata["kept_seed"] == 0 and 0.5 < metadata["as_asked"]["0"] <= 1


@pytest.mark.parametrize(
    "changes", [{}, {"speed": "draft", "steps": 5, "deep_cache": 2}], ids=["published", "everything_left_out"]
)
def test_the_meter_changes_no_frame(metered, tmp_path, changes):
    made = render(job(tmp_path, metered, "with.mp4", emotion="happy", meter=True, **changes), say=lambda text: None)
    assert made.sampled.read.shape == (3, 8) and (made.sampled.read.argmax(1) == NAMES.index("happy")).all()
    render(job(tmp_path, metered, "without.mp4", emotion="happy", **changes), say=lambda text: None)
    assert np.array_equal(pictures(tmp_path / "with.mp4"), pictures(tmp_path / "without.mp4"))


def test_the_meter_is_shown_while_sampling(metered, tmp_path, capsys, monkeypatch):
    shown = []
    monkeypatch.setattr("tqdm.std.tqdm.set_postfix_str", lambda bar, text="", refresh=True: shown.append(text))
    render(job(tmp_path, metered, "a.mp4", emotion="angry", meter=True), say=lambda text: None)
    assert shown and all(text.startswith("reads ") and text.endswith("%") for text in shown)


def test_without_an_order_the_weights_are_not_loaded(following, tmp_path, monkeypatch):
    monkeypatch.setattr("dicetalk.rendering.load_pipeline", lambda *_: pytest.fail("the weights were loaded"))
    for changes in ({"meter": True}, {"best_of": 2}):
        with pytest.raises(InputError, match="python -m dicetalk emotion classes --checkpoint"):
            render(job(tmp_path, following, "a.mp4", **changes), say=lambda text: None)
    assert list(tmp_path.iterdir()) == []


def test_the_seed_that_reads_best_is_kept(metered, tmp_path):
    asked, scores = {"emotion": "0s sad; 0.1s fear"}, {}
    for seed in (5, 6, 7):
        one = render(job(tmp_path, metered, f"{seed}.mp4", seed=seed, meter=True, **asked), say=lambda text: None)
        scores[seed] = one.sampled.scores[seed]
    assert len(set(scores.values())) == 3
    said = []
    clip = job(tmp_path, metered, "best.mp4", seed=5, best_of=3, **asked)
    made = render(clip, say=said.append)
    winner = max(scores, key=scores.get)
    assert made.sampled.seed == winner and made.sampled.scores == pytest.approx(scores)
    assert f"Seed {winner} is kept" in said[-1]
    assert np.array_equal(pictures(tmp_path / "best.mp4"), pictures(tmp_path / f"{winner}.mp4"))
    assert f"seed {winner}" in read_metadata(tmp_path / "best.mp4")["comment"]
    assert left_over(tmp_path) == []

    outcome = Engine().make(job(tmp_path, metered, "batch.mp4", seed=5, best_of=3, **asked))
    assert (outcome.status, outcome.seed) == (DONE, winner)
    assert outcome.as_asked == pytest.approx(scores[winner], abs=1e-4)
    assert np.array_equal(pictures(tmp_path / "batch.mp4"), pictures(tmp_path / f"{winner}.mp4"))


def test_an_interrupted_best_of_resumes(metered, tmp_path, monkeypatch):
    asked = {"emotion": "fear", "best_of": 3, "steps": 3, "clamp_windows": True}
    clip = job(tmp_path, metered, "a.mp4", **asked)
    steps, step = [], "dicetalk.sampling.resume.Run.step"
    keep = __import__("dicetalk.sampling.resume", fromlist=["Run"]).Run.step

    def interrupted(run, done, *tensors):
        keep(run, done, *tensors)
        steps.append(done)
        if len(steps) == 5:  # in the second seed
            raise KeyboardInterrupt

    monkeypatch.setattr(step, interrupted)
    with pytest.raises(KeyboardInterrupt, match="--resume"):
        render(clip, say=lambda text: None)
    assert sorted(left_over(tmp_path)) == ["a.mp4.seed0.resume", "a.mp4.seed1.resume"]

    steps.clear()
    monkeypatch.setattr(step, lambda run, done, *tensors: (steps.append(done), keep(run, done, *tensors)))
    said = []
    resumed = render(clip, resume=True, say=said.append)
    assert steps == [3, 1, 2, 3] and not any("no interrupted run" in line for line in said)
    whole = render(job(tmp_path, metered, "b.mp4", **asked), say=lambda text: None)
    assert resumed.sampled.scores == whole.sampled.scores
    assert np.array_equal(pictures(tmp_path / "a.mp4"), pictures(tmp_path / "b.mp4"))
    assert left_over(tmp_path) == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"best_of": 0}, "best_of is 0"),
        ({"best_of": 101}, "1 to 100"),
        ({"best_of": 2, "seed": 2**63 - 1}, "beyond"),
        ({"best_of": 2, "noise": "published"}, "one seed"),
        ({"meter": "perhaps"}, "meter is perhaps"),
    ],
)
def test_values_that_cannot_be_meant(values, words):
    with pytest.raises(InputError, match=words):
        Job.of({"portrait": "a.png", "audio": "a.wav", "output": "a.mp4"} | values)


def test_the_chart_overwrites_no_input(metered, tmp_path):
    clip = job(tmp_path, metered, "a.mp4", meter=True)
    shutil.copy(clip.portrait, tmp_path / "a.meter.png")
    clip = job(tmp_path, metered, "a.mp4", meter=True, portrait=tmp_path / "a.meter.png")
    with pytest.raises(InputError, match="meter would write over"):
        clip.check_files()


def test_an_order_that_cannot_be_written_is_one_error(metered, tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    classifier = load_classifier(resolve_checkpoint(metered))
    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(InputError, match=f"{FILE} cannot be written: the disk is full"):
        save_order(KNOWN_FROM_TRAINING, tmp_path, classifier)
    assert list(tmp_path.iterdir()) == []


def test_where_the_order_is_kept(metered):
    assert order_file(resolve_checkpoint(metered)) == metered / "emotion_classes.json"
