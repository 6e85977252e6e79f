"""`python -m dicetalk batch`: what it prints, its report and its exit code."""

import json
import os
import signal
import sys

import pytest
import warm
from project import DEMO, ROOT
from small_jobs import left_over

from dicetalk.batch.engine import Outcome
from dicetalk.cli import main
from dicetalk.commands.batch import _Progress


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
    assert lines[-2]["windows_ended"] == 4
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


@pytest.fixture
def on_ray(monkeypatch):
    """What `run_on_ray` is called with; it makes the first row on one worker and the others on another."""
    called = []

    def run_on_ray(rows, on_outcome, workers, address, on_windows):
        called.append((workers, address))
        on_windows("a-1", 3)
        for row in rows:
            on_outcome(Outcome(row.number, "done", row.output, windows=2, worker="a-1" if row.number == 1 else "b-2"))

    monkeypatch.setattr("dicetalk.batch.cluster.run_on_ray", run_on_ray)
    return called


@pytest.mark.parametrize(
    "options, workers, address",
    [
        (["--ray", "auto"], None, "auto"),
        (["--ray", "10.0.0.1:6379", "--workers", "auto"], None, "10.0.0.1:6379"),
        (["--ray", "auto", "--workers", "3"], 3, "auto"),
        (["--workers", "2"], 2, None),
    ],
)
def test_a_cluster_has_a_worker_for_each_gpu_unless_a_number_is_given(table, on_ray, options, workers, address):
    pytest.importorskip("ray", reason="Ray is not installed")
    assert main(["batch", str(table), *options]) == 0
    assert on_ray == [(workers, address)]


def test_progress_is_by_worker(table, on_ray, capsys):
    assert main(["batch", str(table), "--ray", "auto", "--json"]) == 0
    *lines, total = map(json.loads, capsys.readouterr().out.splitlines())
    assert [(line["worker"], line["worker_clips"], line["worker_windows"]) for line in lines] == [
        ("a-1", 1, 3),  # it has begun the next one
        ("b-2", 1, 2),
        ("b-2", 2, 4),
    ]
    assert [line["windows_ended"] for line in lines] == [3, 5, 7]
    assert total["workers"] == {"a-1": {"clips": 1, "windows": 3}, "b-2": {"clips": 2, "windows": 4}}
    main(["batch", str(table), "--ray", "auto"])
    assert "worker b-2: 2 clips, 4 window steps" in capsys.readouterr().out


def test_what_was_there_says_nothing_about_the_time_left(capsys):
    with _Progress(3, True) as progress:
        for row, status in enumerate(("skipped", "done", "skipped")):
            progress.add(Outcome(row, status))
    left = [json.loads(line)["seconds_left"] for line in capsys.readouterr().out.splitlines()]
    assert left[0] is None and left[1] >= 0 and left[2] == 0


def test_without_ray_one_process_makes_the_videos_and_says_what_to_install(table, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["batch", str(table), "--workers", "2"]) == 1
    printed = capsys.readouterr()
    assert "2 workers need Ray (pip install ray): the videos are made in one process" in printed.err
    assert "2 done, 0 skipped, 1 failed" in printed.out
    assert main(["batch", str(table), "--ray", "auto"]) == 2
    assert "Ray is not installed" in capsys.readouterr().err


@pytest.mark.parametrize("name, words", [("jobs.csv", "the table itself"), ("a.mp4", "a file of row 1")])
def test_the_report_replaces_nothing_that_the_batch_needs(table, name, words, capsys):
    before = table.read_bytes()
    report = table.parent / name
    assert main(["batch", str(table), "--report", str(report)]) == 2
    assert f"--report is {report}, {words}" in capsys.readouterr().err
    assert table.read_bytes() == before and [file.name for file in table.parent.iterdir()] == ["jobs.csv"]


def test_a_row_that_changed_replaces_its_video_and_the_others_stay(table, tiny_checkpoint, capsys):
    main(["batch", str(table), "--json"])
    stamps = {name: (table.parent / name).stat().st_mtime_ns for name in ("a.mp4", "c.mp4")}
    table.write_text(table.read_text().replace("sad:0.5", "sad:0.6").replace(",happy,", ', "happy ",'))
    capsys.readouterr()
    main(["batch", str(table), "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()[:-1]]
    assert {line["row"]: line["status"] for line in lines} == {1: "skipped", 2: "failed", 3: "done"}
    changed = {name for name, stamp in stamps.items() if (table.parent / name).stat().st_mtime_ns != stamp}
    assert changed == {"c.mp4"}


@pytest.mark.skipif(os.name == "nt", reason="another program cannot be interrupted alone on Windows")
@pytest.mark.timeout(600)
def test_ctrl_c_ends_the_command_and_the_same_command_continues(table, tiny_checkpoint):
    """The process is sent what Ctrl-C sends as soon as its first clip is made."""
    row = table.read_text().splitlines()[1]
    rows = [row.replace("a.mp4", f"{number}.mp4").replace(",1,0.2,", ",6,0.2,") for number in range(3)]
    table.write_text("\n".join([table.read_text().splitlines()[0], *rows]))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def begin():
        return warm.start(warm.COMMAND, "batch", table, "--json", environment=environment, cwd=table.parent)

    process = begin()
    first = json.loads(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert errors.startswith("dicetalk batch: interrupted. Finished steps are kept: the same command continues")
    assert "Traceback" not in errors and first["status"] == "done"
    assert not [name for name in left_over(table.parent) if name.endswith(".part")]
    again = begin()
    printed, errors = again.communicate()
    assert again.returncode == 0, errors
    ended = [json.loads(line) for line in printed.splitlines()]
    assert ended[-1]["skipped"] >= 1 and ended[-1]["skipped"] + ended[-1]["done"] == 3
    assert left_over(table.parent) == []
