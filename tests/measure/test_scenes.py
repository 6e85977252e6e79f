"""Dialogues, and videos that are made again, of drawn people: what is read off them, and what the miniature makes."""

import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from project import ROOT

from dicetalk import cli
from dicetalk.batch.dialogue import render_dialogue
from dicetalk.drawn import Person, Take
from dicetalk.drawn.splits import people
from dicetalk.measure import dialogues, remade
from dicetalk.measure.drawn_clips import Sampling, correlation
from dicetalk.measure.goals import crowd_of, speech
from dicetalk.measure.head import HeadReader
from dicetalk.measure.reader import read_reader
from dicetalk.measure.remade import DrawnVideo
from dicetalk.measure.scenes import Scenes
from dicetalk.media.video import write_video


@pytest.fixture
def scenes(tmp_path):
    return Scenes("miniature", read_reader(), tmp_path, render_dialogue)


def test_in_a_dialogue_of_the_miniature_each_mouth_follows_its_own_track(tmp_path):
    """Few steps, for the time that a test may take; `evaluate --only dialogue` measures the published ones."""
    scenes = Scenes(str(ROOT / "miniature"), read_reader(), tmp_path, render_dialogue, Sampling(steps=6), device="cpu")
    done = []
    rows = {row.what: row for row in dialogues.measure_dialogue(scenes, 2, lambda *each: done.append(each))}
    assert done == [(1, 2), (2, 2)] and len(rows) == 6
    for what in ("two speak at once", "two speak in turns"):
        own = rows[f"{what}: mouth against its own track, correlation"]
        other = rows[f"{what}: mouth against the other one's track, correlation"]
        assert own.clips == 2 and own.met and own.numbers["correlation"] >= 0.7, own.value
        assert other.met and other.numbers["correlation"] <= 0.2, other.value
    listens = rows["two speak in turns: opening of the mouth while listening, and while speaking"].numbers
    assert listens["listening"] < 0.5 * listens["speaking"]


def drawn_dialogue(takes, side):
    """In the place of `render_dialogue`: a video in which the first person is the first take, and so on."""

    def make(job, emotions, audios, turns, faces, say):
        count = min(map(len, takes))
        frames = [np.concatenate([take.frame(at, side) for take in takes], axis=1) for at in range(count)]
        write_video(job.output, frames, 12.5)

    return make


def test_true_drawings_follow_their_track_and_exchanged_ones_do_not(scenes):
    takes = dialogues.pair_of_takes(crowd_of(2), 0, scenes.frames)
    assert [take.emotion for take in takes] == ["happy", "surprised"] and takes[0].sentence != takes[1].sentence
    scenes = replace(scenes, render_dialogue=drawn_dialogue(takes, scenes.side))
    own, other = dialogues._mouth_rows("", dialogues.speak_at_once(scenes, takes))
    assert own.met and own.numbers["correlation"] > 0.9 and other.met
    exchanged = [Take(one.person, one.emotion, one.level, of.sentence, of.seed) for one, of in zip(takes, takes[::-1])]
    scenes = replace(scenes, render_dialogue=drawn_dialogue(exchanged, scenes.side))
    own, other = dialogues._mouth_rows("", dialogues.speak_at_once(scenes, takes))
    assert not own.met and not other.met and other.numbers["correlation"] > 0.7


def test_in_turns_who_listens_is_found(scenes):
    takes = dialogues.pair_of_takes(crowd_of(2), 0, scenes.frames)
    half, seen = scenes.frames // 2, {}

    def make(job, emotions, audios, turns, faces, say):
        seen.update(turns=turns, audios=audios, emotions=emotions)
        still = [take.portrait(scenes.side) for take in takes]
        first = [np.concatenate([takes[0].frame(at, scenes.side), still[1]], axis=1) for at in range(half)]
        second = [np.concatenate([still[0], takes[1].frame(at, scenes.side)], axis=1) for at in range(half)]
        write_video(job.output, first + second, 12.5)

    scenes = replace(scenes, render_dialogue=make)
    heard = dialogues.speak_in_turns(scenes, takes)
    assert seen["turns"] == f"0s 1; {half * 0.08:g}s 2" and len(seen["audios"]) == 1
    own, other = dialogues._mouth_rows("", heard)
    assert own.met and other.numbers["correlation"] < 0
    listens = dialogues._listening_row(heard).numbers
    assert listens["listening"] < 0.1 < listens["speaking"]


def test_the_second_ones_track_has_little_in_common_with_the_first_ones():
    for place in range(3):
        takes = dialogues.pair_of_takes(crowd_of(2 * place + 2)[-2:], place, 25)
        count = min(*map(len, takes), 25)
        assert abs(correlation(*(take.opening[:count] for take in takes))) < 0.2


def test_the_head_is_read_off_drawings():
    head = HeadReader(Person.of(people("held-out", 1)[0]))
    assert min(head.right) > 0.8
    take = Take(Person.of(people("held-out", 1)[0]), "sad", None, 3, 3)
    moved = np.array([(pose.x, pose.y) for pose in take.poses])
    read = head.read([take.frame(number, 96) for number in range(len(take))])
    assert min(correlation(read[:, axis], moved[:, axis]) for axis in range(2)) > 0.8


def test_what_a_video_keeps_and_what_changes_is_read(scenes, monkeypatch):
    take = speech(crowd_of(1)[0], "neutral", 0)
    video = DrawnVideo(scenes, take, "sad")
    assert not video.read.changed and video.read.mouth == pytest.approx(1) and video.read.head == pytest.approx(1)
    jobs = []

    def as_it_was(job, say):
        jobs.append(job)
        shutil.copyfile(job.video, job.output)

    monkeypatch.setattr(remade, "render", as_it_was)
    same = video.with_emotion(0.4)
    assert not same.changed and same.mouth > 0.99 and same.head > 0.99
    voice = video.with_voice(0.7)
    assert voice.speech < 0.5 and voice.mouth > 0.99
    assert [(job.emotion, job.denoise, job.audio is None) for job in jobs] == [
        ("sad", 0.4, True),
        ("neutral", 0.7, False),
    ]

    def another(job, say):
        other = Take(take.person, job.emotion, 3, 0, 0)
        write_video(job.output, [other.frame(number, scenes.side) for number in range(25)], 12.5)

    monkeypatch.setattr(remade, "render", another)
    changed = video.with_emotion(1.0)
    assert changed.changed and changed.share > 0.5 and changed.mouth < 0.7 and changed.head < 0.9


def test_the_command_prints_both(tiny_checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "COMMANDS", ("evaluate",))
    monkeypatch.setattr(remade, "measure_react", partial(remade.measure_react, denoises=(0.5,)))
    small = ["--people", "1", "--frames", "4", "--steps", "1", "--device", "cpu", "--output", str(tmp_path / "out")]
    small += ["--clips", str(tmp_path / "clips"), "--only", "dialogue", "react"]
    assert cli.main(["evaluate", "--checkpoint", str(tiny_checkpoint), *small]) == 0
    assert "## Dialogue" in (out := capsys.readouterr().out) and "## React" in out
    sections = json.loads((tmp_path / "out" / "evaluation.json").read_text())["sections"]
    assert len(sections["Dialogue"]) == 6 and len(sections["React"]) == 1 + 2
    assert 0 <= sections["React"][1]["numbers"]["probability"] <= 1
    made = {path.name for path in (tmp_path / "clips").glob("*.mp4")}
    assert len(made) == 2 + 1 + 2
