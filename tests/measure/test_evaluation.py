"""The table of goals in the drawn world: what is asked for, what is read off it, and what is written."""

import json

import numpy as np
import pytest
import torch

from dicetalk import cli
from dicetalk.drawn import Person
from dicetalk.emotion.options import NAMES
from dicetalk.emotion.value import Emotion
from dicetalk.measure import goals
from dicetalk.measure.drawn_clips import Asked, Sampling, Studio, correlation
from dicetalk.measure.evaluation import MINIATURE, UNTRAINED, table
from dicetalk.measure.reader import read_reader

PRIORS = {name: Emotion(torch.full((256,), float(number))) for number, name in enumerate(NAMES)}


class DrawnStudio(Studio):
    """Draws what is asked for, as a perfect model would."""

    def __init__(self):
        super().__init__(None, read_reader())

    def make(self, asked, sampling):
        from dataclasses import replace

        from dicetalk.drawn import Take

        name = asked.about.get("emotion", "neutral")
        take = Take(asked.person, name, 2 if name != "neutral" else 1, asked.take.sentence, asked.take.seed)
        return replace(self.draw(Asked(asked.person, take, asked.emotion, asked.about)), seconds=1.0)


@pytest.fixture(scope="module")
def studio():
    return DrawnStudio()


def test_drawn_clips_meet_the_goals_of_emotion_lips_and_identity(studio):
    clips = goals.plain_clips(PRIORS, goals.crowd_of(2))
    assert len(clips) == 16 and {each.about["emotion"] for each in clips} == set(NAMES)
    results = goals.make_all(studio, {"": clips}, Sampling())[""]
    emotion = goals.emotion_row(results, results)
    own, other = goals.lips_rows(results)
    right, apart = goals.identity_rows(studio, results, results, goals.crowd_of(50))
    assert emotion.met and emotion.numbers["accuracy"] >= 0.9 and emotion.clips == 16
    assert own.met and own.numbers["correlation"] > 0.8
    assert other.numbers["correlation"] < own.numbers["correlation"] - 0.4
    assert right.met and apart.numbers["points"] <= 50
    assert sum(sum(row.values()) for row in emotion.numbers["confusion"].values()) == 16


def test_people_and_sentences_are_held_out(studio):
    from dicetalk.drawn.sentences import SENTENCES
    from dicetalk.drawn.splits import split_of

    for each in goals.plain_clips(PRIORS, goals.crowd_of(3)):
        assert split_of(each.person.number) == split_of(SENTENCES.index(each.take.sentence)) == "held-out"


@pytest.mark.parametrize("at", [1, 4, 9])
def test_a_change_is_found_where_it_is(at):
    logarithms = np.log(np.full((12, 8), 0.02))
    logarithms[:, NAMES.index("neutral")] = np.log(0.8)
    logarithms[at:, NAMES.index("happy")] = np.log(0.9)
    strength = np.where(np.arange(12) < at, 0.05, 0.6)
    assert goals.change({"emotion": logarithms, "strength": strength}, "happy") == at


def test_correlation():
    assert correlation(np.arange(5.0), 2 * np.arange(5.0)) == pytest.approx(1)
    assert correlation(np.arange(5.0), -np.arange(5.0)) == pytest.approx(-1)
    assert correlation(np.arange(5.0), np.ones(5)) == 0


def test_intensity_and_mix_are_judged_by_what_is_read():
    def result(emotion=None, intensity=1.0, strength=0.0, shares=None, mix=None, person=3):
        class Result:
            asked = Asked(Person.of(person), None, None, {"emotion": emotion, "intensity": intensity, "mix": mix})
            clip = {"strength": strength, "shares": shares}

        return Result

    rising = [
        result(name, intensity, strength=0.3 * intensity) for name in goals.SHOWN for intensity in goals.INTENSITIES
    ]
    assert goals._intensity_row(rising).met
    rising[0].clip["strength"] = 9.0
    assert not goals._intensity_row(rising).met

    def shares(**given):
        return np.array([given.get(name, 0.0) for name in NAMES])

    right = [
        result(shares=shares(happy=0.6, sad=0.3), mix=["happy", "sad"]),
        result(shares=shares(happy=0.3, sad=0.6), mix=["sad", "happy"]),
    ]
    assert goals._mix_row(right).met
    swapped = [
        result(shares=shares(happy=0.3, sad=0.6), mix=["happy", "sad"]),
        result(shares=shares(happy=0.6, sad=0.3), mix=["sad", "happy"]),
    ]
    assert not goals._mix_row(swapped).met and goals._mix_row(swapped).numbers["two"] == 1


def test_a_table_leaves_empty_columns_out():
    rows = [goals.Row("mouth", "0.50", "≥ 0.70", False, 8), goals.Row("dose", "0.1", clips=2)]
    assert table(rows) == (
        "| what | measured | goal | met | clips |\n| --- | --- | --- | --- | --- |\n"
        "| mouth | 0.50 | ≥ 0.70 | no | 8 |\n| dose | 0.1 |  |  | 2 |"
    )


def test_the_command_measures_a_checkpoint(tmp_path, tiny_checkpoint, capsys, monkeypatch):
    monkeypatch.setattr(cli, "COMMANDS", ("evaluate",))
    small = ["--people", "1", "--frames", "4", "--steps", "1", "--device", "cpu", "--output", str(tmp_path / "out")]
    arguments = ["evaluate", "--checkpoint", str(tiny_checkpoint), *small, "--clips", str(tmp_path / "clips")]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert UNTRAINED in out and MINIATURE not in out and "the reader's own error" in out
    for what in ("emotion accuracy, eight classes", "mouth against its speech", "among 50", "timeline", "a mix of two"):
        assert what in out
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    rows = record["sections"]["Goals"]
    assert rows[0]["clips"] == 8 and 0 <= rows[0]["numbers"]["accuracy"] <= 1 and record["reader"]["among"] == 50
    assert (tmp_path / "out" / "evaluation.md").read_text() in out + "\n"
    assert (tmp_path / "out" / "faces.png").is_file()
    assert len(list((tmp_path / "clips").glob("*.mp4"))) == 8 + 14 + 1 + 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--people", "0"], "--people is 0: give 1 or more"),
        (["--frames", "1"], "--frames is 1: give 2 or more"),
        (["--size", "100"], "--size 100: give a multiple of 64"),
        (["--emotion-scale", "-1"], "--emotion-scale is -1.0: give a number from 0 on"),
        (["--reader", "none.safetensors"], "there is no reader of drawn people here"),
    ],
)
def test_wrong_options_are_one_line(tiny_checkpoint, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(cli, "COMMANDS", ("evaluate",))
    assert cli.main(["evaluate", "--checkpoint", str(tiny_checkpoint), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
