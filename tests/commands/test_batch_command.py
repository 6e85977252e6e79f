"""`python -m dicetalk batch`: what it prints, its report and its exit code."""

import json

import pytest
from project import DEMO
from small_jobs import left_over

from dicetalk.cli import main


@pytest.fixture
def table(tmp_path, tiny_checkpoint):
    """Three small clips, of which the second has no speech."""
    columns = "portrait,audio,output,emotion,checkpoint,size,steps,length,device"
    small = f"{tiny_checkpoint},64,1,0.2,cpu"
    rows = [
        f"{DEMO / 'portrait.jpg'},{DEMO / 'speech.flac'},a.mp4,happy,{small}",
        f"{DEMO / 'portrait.jpg'},nowhere.wav,b.mp4,,{small}",
        f"{DEMO / 'portrait.jpg'},{DEMO / 'speech.flac'},c.mp4,sad:0.5,{small}",
    ]
    (tmp_path / "jobs.csv").write_text("\n".join([columns, *rows]))
    return tmp_path / "jobs.csv"


def test_a_table_is_checked_then_made_then_skipped(table, capsys):
    assert main(["batch", str(table), "--dry-run"]) == 1
    printed = capsys.readouterr()
    assert "2 checked, 0 skipped, 1 failed. 4 window steps, about" in printed.out
    assert "row 2 failed" in printed.err and "nowhere.wav, which does not exist" in printed.err
    assert [file.name for file in table.parent.iterdir()] == ["jobs.csv"]

    assert main(["batch", str(table), "--json"]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["row"]: line["status"] for line in lines[:-1]} == {1: "done", 2: "failed", 3: "done"}
    assert [line["clips_ended"] for line in lines[:-1]] == [1, 2, 3] and lines[-2]["seconds_left"] == 0
    assert lines[-1] == {"done": 2, "skipped": 0, "failed": 1, "report": f"{table}.report.jsonl"}
    report = [json.loads(line) for line in open(f"{table}.report.jsonl", encoding="utf-8")]
    assert {row["row"]: row["status"] for row in report} == {1: "done", 2: "failed", 3: "done"}
    assert (table.parent / "a.mp4").is_file() and (table.parent / "c.mp4").is_file()
    assert left_over(table.parent) == []

    assert main(["batch", str(table)]) == 1
    assert "0 done, 2 skipped, 1 failed. Report: " in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "Give a table, or --portraits"),
        (["jobs.csv", "--portraits", "x"], "exactly one"),
        (["--portraits", "x"], "--portraits and --audios"),
        (["nowhere.csv"], "nowhere.csv does not exist"),
        (["nowhere.csv", "--workers", "0"], "--workers 0: give auto or a whole number"),
        (["nowhere.csv", "--set", "x=1"], "--set x=1: give FIELD=VALUE"),
    ],
)
def test_bad_options_are_one_line(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["batch", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("dicetalk batch: error: ") and words in error and len(error.splitlines()) == 1
