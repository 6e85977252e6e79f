"""The table of goals in the drawn world: what is asked for, what is read off it, and what is written."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dicetalk import cli
from dicetalk.drawn import Person
from dicetalk.emotion.options import NAMES
from dicetalk.emotion.value import Emotion
from dicetalk.measure import goals
from dicetalk.measure.drawn_clips import Asked, Result, Sampling, Studio, correlation
from dicetalk.measure.evaluation import MINIATURE, UNTRAINED, table
from dicetalk.measure.reader import read_reader
from dicetalk.measure.savings import Saving, measure_savings

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
    assert other.met and abs(other.numbers["correlation"]) < 0.2
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


@pytest.mark.parametrize("longest", [2, 13, 25])
def test_a_timeline_changes_inside_the_clip(longest):
    for each in goals._timelines(PRIORS, goals.crowd_of(4), longest):
        assert 0 < each.about["at"] * 12.5 < longest
        assert each.emotion.at(0) == PRIORS["neutral"] and each.emotion.at(9) == PRIORS[each.about["emotion"]]


def test_correlation():
    assert correlation(np.arange(5.0), 2 * np.arange(5.0)) == pytest.approx(1)
    assert correlation(np.arange(5.0), -np.arange(5.0)) == pytest.approx(-1)
    assert correlation(np.arange(5.0), np.ones(5)) == correlation(np.ones(1), np.ones(1)) == 0


def test_the_closed_mouth_before_speech_is_no_likeness():
    def spoken(opening):
        return SimpleNamespace(opening=np.array(opening))

    mouth = np.array([0, 0, 0, 0.8, 0.2, 0.9, 0.4])
    asked = Asked(None, spoken([0, 0, 0, 0.8, 0.2, 0.9, 0.4]), None)
    result = Result(asked, {"mouth": mouth}, {}, 0.0)
    other = spoken([0, 0, 0.3, 0.5, 0.6, 0.4, 0.5])
    assert result.lips() == pytest.approx(1)
    assert result.lips(other) == pytest.approx(correlation(mouth[3:], other.opening[3:])) and result.lips(other) < -0.5


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


def test_what_is_harder_is_measured(studio):
    done = []
    rows = goals.measure_harder(studio, PRIORS, Sampling(), 1, on_result=lambda *each: done.append(each))
    by_name = {row.what: row for row in rows}
    assert done[-1][0] == done[-1][1] == len(done) == 7 + 8 + (5 + 4) * 7
    against = next(row for name, row in by_name.items() if name.startswith("speech of another emotion"))
    assert against.numbers["asked"] > 0.7 > 0.3 > against.numbers["voice"]  # drawn with the asked one
    assert {f"intensity {dose:g}" for dose in (0, 0.5, 1, 1.5, 2)} <= set(by_name)
    assert "emotion scale 1, reference scale 1" in by_name and "emotion scale 9, reference scale 3" in by_name


def test_a_dose_is_not_taken_for_a_plain_clip():
    """The sheet of faces, and the names of files, go by what a clip is for."""
    asked = []

    class Listening(DrawnStudio):
        def make(self, each, sampling):
            asked.append(each)
            return super().make(each, sampling)

    goals.measure_harder(Listening(), PRIORS, Sampling(), 1)
    doses = [each for each in asked if "intensity" in each.about]
    assert {each.about["intensity"] for each in doses} == {0, 0.5, 1, 1.5, 2}
    for each in doses:
        neutral, own = PRIORS["neutral"], PRIORS[each.about["emotion"]]
        assert each.emotion == own.with_intensity(neutral, each.about["intensity"])


def test_another_persons_clip(studio):
    asked = goals._references(lambda take: PRIORS[take.emotion], goals.crowd_of(2))
    assert len(asked) == 16
    assert all(each.about["by"] not in (each.person.number, each.take.person.number) for each in asked)
    results = goals.make_all(studio, {"": asked}, Sampling())[""]
    accuracy, probe = goals._reference_rows(studio, results, goals.crowd_of(50))
    assert accuracy.goal == "≥ 75 %" and accuracy.numbers["accuracy"] > 0.8
    assert probe.numbers["chance"] == pytest.approx(10 / 49) and 0 <= probe.numbers["found"] <= 1


def test_savings_change_the_model_for_their_own_clips_alone(studio):
    class Pipeline:
        unet = torch.nn.Linear(4, 4)
        pose_guider = torch.nn.Linear(4, 4)

    seen = []

    class Watching(DrawnStudio):
        def make(self, asked, sampling):
            weight = self.pipeline.unet.weight
            seen.append((sampling, weight.dtype, len(weight.unique())))
            return super().make(asked, sampling)

    watching = Watching()
    watching.pipeline = Pipeline()
    before = Pipeline.unet.weight.clone()
    chosen = (
        Saving("few", {"steps": 3}),
        Saving("windows", {"window": 12}),
        Saving("half", dtype=torch.bfloat16),
        Saving("fp8", weights=torch.float8_e4m3fn),
    )
    rows = measure_savings(watching, PRIORS, Sampling(), 1, chosen)
    assert [row.what for row in rows] == ["as asked (25 steps)", "few", "windows", "half", "fp8"]
    assert rows[0].numbers["time"] == 1 and all(row.clips == 8 for row in rows)
    steps, windows = ([each[0].steps for each in seen[::8]], [each[0].window for each in seen[::8]])
    assert steps == [25, 3, 25, 25, 25] and windows == [25, 25, 12, 25, 25]
    assert [each[1] for each in seen[::8]] == [torch.float32] * 3 + [torch.bfloat16, torch.float32]
    assert torch.equal(watching.pipeline.unet.weight, before)
    rounded = before.to(torch.float8_e4m3fn).float()
    assert not torch.equal(rounded, before) and seen[-1][2] == len(rounded.unique())


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
    assert rows[0]["clips"] == 8 and 0 <= rows[0]["numbers"]["accuracy"] <= 1 and record["reader"]["people"] == 50
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
