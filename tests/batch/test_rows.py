"""Tables and folders as jobs."""

import json
import os

import pytest

from dicetalk.batch.rows import folder_rows, read_rows
from dicetalk.commands.batch import read_changes
from dicetalk.errors import InputError
from dicetalk.job import defaults

LINE = {"portrait": "a.png", "audio": "a.wav", "output": "a.mp4"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_csv(tmp_path, delimiter, encoding):
    table = tmp_path / "jobs.csv"
    lines = [["portrait", "audio", "output", "seed", "crop"], ["ä.png", "a.wav", "x/a.mp4", "7", ""], [""] * 5]
    table.write_text("\n".join(map(delimiter.join, lines)), encoding=encoding)
    (row,) = read_rows(table)
    assert row.number == 1 and row.problem is None
    assert row.job.portrait == str(tmp_path / "ä.png") and row.job.output == str(tmp_path / "x/a.mp4")
    assert (row.job.seed, row.job.crop, row.job.emotion) == (7, False, "neutral")


CELLS = "portrait,audio,output,emotion,seed\n"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_as_spreadsheets_write_it(tmp_path, end):
    """Empty columns at the end, spaces after commas, line ends of all systems, and lines and commas within quotes."""
    text = 'portrait,audio, output ,emotion,seed,,\na.png, a.wav,a.mp4 , "(sad 0.7 + fear 0.3), ",7.0,,\n'
    text += 'a.png,a.wav,b.mp4,"0s sad;\n1s happy",,,\n'
    (tmp_path / "jobs.csv").write_bytes(text.replace("\n", end).encode("utf-8-sig"))
    first, second = (row.job for row in read_rows(tmp_path / "jobs.csv"))
    assert (first.audio, first.output) == (str(tmp_path / "a.wav"), str(tmp_path / "a.mp4"))
    assert (first.emotion, first.seed, second.emotion) == ("(sad 0.7 + fear 0.3),", 7, f"0s sad;{end}1s happy")


def test_a_quote_that_is_never_closed_swallows_no_rows(tmp_path):
    rows = ["a.png,a.wav,a.mp4,,", 'a.png,a.wav,b.mp4,"0s sad;', '1s happy",', 'a.png,a.wav,c.mp4,"0s sad,']
    (tmp_path / "jobs.csv").write_text(CELLS + "\n".join([*rows, rows[0]]))
    with pytest.raises(InputError, match="jobs.csv cannot be read from line 5 on: .*; check its quotation marks"):
        read_rows(tmp_path / "jobs.csv")
    (tmp_path / "jobs.csv").write_text('portrait,"audio\n')
    with pytest.raises(InputError, match="jobs.csv cannot be read from line 1 on"):
        read_rows(tmp_path / "jobs.csv")


@pytest.mark.parametrize("value", [[], {}, {"a": 1}, [None], [{}], ["x", "y"], "\0", "\ud800", 5, -1.5, True, [[1]]])
def test_whatever_a_cell_holds_is_a_job_or_one_line(tmp_path, value):
    for row in read_rows(jsonl(tmp_path, *(LINE | {field: value} for field in defaults()))):
        assert (row.job is None) == (row.problem is not None)
        assert row.problem is None or len(row.problem.splitlines()) == 1


def test_an_empty_list_is_an_empty_cell_and_an_empty_choice_an_error(tmp_path):
    empty = LINE | {"emotion": [], "seed": []}
    rows = read_rows(jsonl(tmp_path, empty, LINE | {"emotion": "happy|", "output": "{emotion}.mp4"}))
    assert (rows[0].job.emotion, rows[0].job.seed) == ("neutral", 0)
    (problem,) = [row.problem for row in rows[1:]]
    assert problem == "row 2, column emotion is happy|, where one choice of several is empty: leave it out."
    with pytest.raises(InputError, match=r"seed for all rows is 1\|\|2, where one choice"):
        read_rows(jsonl(tmp_path, LINE), {"seed": "1||2"})


def jsonl(folder, *rows):
    table = folder / "jobs.jsonl"
    table.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return table


def test_a_row_with_a_problem_fails_alone_and_is_named(tmp_path):
    table = jsonl(
        tmp_path,
        LINE,
        LINE | {"seed": "x", "output": "b.mp4"},
        {"portrait": "a.png", "output": "c.mp4"},
        "{",
        "[1]",
        LINE | {"sed": 1, "output": "d.mp4"},
    )
    rows = read_rows(table)
    assert [row.number for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row.problem is None for row in rows] == [True] + [False] * 5
    assert rows[1].problem.startswith("row 2, column seed is x: give a whole number")
    assert rows[2].problem.startswith("row 3, column audio is missing")
    assert rows[3].problem.startswith("row 4: it is not JSON")
    assert rows[4].problem.startswith("row 5: it is no JSON object")
    assert rows[5].problem.startswith("row 6, column sed is no setting")


def test_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = tmp_path / "jobs.parquet"
    rows = [LINE | {"seed": 3.0, "emotion": ["happy", "sad"], "output": "{emotion}.mp4"}]
    rows += [LINE | {"seed": float("nan"), "emotion": None}]
    parquet.write_table(pa.Table.from_pylist(rows), table)
    read = read_rows(table)
    assert [(row.number, row.job.emotion, row.job.seed) for row in read] == [
        (1, "happy", 3),
        (1, "sad", 3),
        (2, "neutral", 0),
    ]
    table.write_bytes(b"nothing")
    with pytest.raises(InputError, match="jobs.parquet cannot be read as Parquet"):
        read_rows(table)


def test_parquet_without_its_library(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"1")
    with pytest.raises(InputError, match="a.parquet is read with pyarrow"):
        read_rows(tmp_path / "a.parquet")


def test_emotions_and_seeds_multiply(tmp_path):
    table = tmp_path / "jobs.csv"
    table.write_text("portrait,audio,output,emotion,seed\na.png,a.wav,{row}_{emotion}_{seed}.mp4,happy:1.3|sad,1|2\n")
    rows = read_rows(table)
    assert [(row.job.emotion, row.job.seed) for row in rows] == [
        ("happy:1.3", 1),
        ("happy:1.3", 2),
        ("sad", 1),
        ("sad", 2),
    ]
    assert os.path.basename(rows[1].job.output) == "0001_happy-1.3_2.mp4"
    assert len({row.job.output for row in rows}) == 4


def test_what_is_set_is_set_in_all_rows(tmp_path, monkeypatch):
    (tmp_path / "else").mkdir()
    table = jsonl(tmp_path, LINE | {"emotion": "sad"}, LINE | {"output": "b.mp4"})
    monkeypatch.chdir(tmp_path / "else")
    rows = read_rows(table, read_changes(["emotion=happy", "steps=3", "audio=c.wav"]))
    assert {(row.job.emotion, row.job.steps) for row in rows} == {("happy", 3)}
    assert {row.job.audio for row in rows} == {str(tmp_path / "else" / "c.wav")}
    for wrong in ("emotion", "colour=red"):
        with pytest.raises(InputError, match=f"--set {wrong}: give FIELD=VALUE"):
            read_changes([wrong])


def test_each_of_several_emotions_that_are_set_is_found_from_where_it_is_set(tmp_path, monkeypatch):
    (tmp_path / "else").mkdir()
    table = jsonl(tmp_path, LINE | {"output": "{emotion}.mp4"})
    monkeypatch.chdir(tmp_path / "else")
    rows = read_rows(table, {"emotion": "happy|clip:c.mov|mine.safetensors|happy.NPY"})
    folder = str(tmp_path / "else")
    emotions = ["happy", f"clip:{folder}/c.mov", f"{folder}/mine.safetensors", f"{folder}/happy.NPY"]
    assert [row.output.removeprefix(str(tmp_path)) for row in rows] == [
        "/happy.mp4",
        "/c.mp4",
        "/mine.mp4",
        "/happy.mp4",
    ]
    assert [row.job and row.job.emotion for row in rows] == [None, *emotions[1:3], None]  # two are happy.mp4


def test_files_beside_the_videos_may_not_collide_either(tmp_path):
    clip = LINE | {"emotion": "clip:c.mov", "chart": "c.png"}
    rows = read_rows(jsonl(tmp_path, clip, clip | {"output": "b.mp4"}, LINE | {"output": "d.mp4", "portrait": "e.png"}))
    assert rows[0].problem == f"row 1, column chart: {tmp_path}/c.png is also the output of row 2: give each its own."
    rows = read_rows(jsonl(tmp_path, clip, LINE | {"output": "b.mp4", "portrait": "c.png"}))
    assert rows[0].problem.startswith("row 1, column chart:") and "a file that row 2 reads" in rows[0].problem
    saved = LINE | {"emotion": "x.safetensors", "script": "a.txt", "output": "d.mp4"}
    for written in (LINE | {"meter": True, "output": "c.mp4"}, clip):
        written = written | {"chart": "x.safetensors"} if "chart" in written else written
        rows = read_rows(jsonl(tmp_path, written, saved, LINE | {"portrait": "c.meter.png", "output": "e.mp4"}))
        assert "a file that row" in rows[0].problem and rows[1].problem is None


def test_outputs_that_collide_are_errors_of_their_rows(tmp_path):
    table = jsonl(
        tmp_path, LINE, LINE | {"seed": 1}, LINE | {"output": "b.mp4"}, LINE | {"seed": [1, 2], "output": "c.mp4"}
    )
    rows = read_rows(table)
    assert [row.problem is None for row in rows] == [False, False, True, False, False]
    assert "also the output of row 2" in rows[0].problem and "also the output of row 1" in rows[1].problem
    assert "another emotion or seed of this row" in rows[3].problem


def test_an_output_that_another_row_reads_is_refused(tmp_path):
    rows = read_rows(jsonl(tmp_path, LINE | {"output": "next.mp4"}, LINE | {"audio": "next.mp4"}))
    assert "a file that row 2 reads" in rows[0].problem and rows[1].problem is None


def test_paths_are_relative_to_the_table(tmp_path):
    (tmp_path / "weights").mkdir()
    line = LINE | {"emotion": "clip:c.mp4", "landmarks": "l.csv", "checkpoint": "weights"}
    saved = LINE | {"emotion": "mine.safetensors", "output": "b.mp4", "checkpoint": "elsewhere"}
    first, second = (row.job for row in read_rows(jsonl(tmp_path, line, saved)))
    assert first.clip == str(tmp_path / "c.mp4") and first.landmarks == str(tmp_path / "l.csv")
    assert first.checkpoint == str(tmp_path / "weights") and first.embedder == "evidence"
    assert second.emotion == str(tmp_path / "mine.safetensors") and second.checkpoint == "elsewhere"


def test_every_portrait_with_every_audio(tmp_path, monkeypatch):
    for name in ("faces/a.png", "faces/b.png", "faces/.hidden", "voices/x.wav", "voices/y.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    monkeypatch.chdir(tmp_path)
    rows = folder_rows("faces", "voices", {"emotion": "happy|sad"}, "out/{portrait}-{audio}-{emotion}.mp4")
    assert len(rows) == 8 and all(row.problem is None for row in rows)
    assert rows[0].job.output == str(tmp_path / "out/a-x-happy.mp4")
    assert [row.number for row in rows] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert all("also the output" in row.problem for row in folder_rows("faces", "voices", {"seed": "1|2"}))
    with pytest.raises(InputError, match="--portraits .*nowhere is no folder"):
        folder_rows(tmp_path / "nowhere", "voices")


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("a.txt", "portrait", "ends in none of"),
        ("a.csv", "portrait,colour\n1,2", "has a column 'colour'"),
        ("a.csv", "portrait,audio\n", "has no rows"),
        ("a.csv", "portrait,portrait\n1,2", "a column twice"),
        ("a.csv", "portr\udce4it\n", "not UTF-8"),
    ],
)
def test_a_table_that_cannot_be_read(tmp_path, name, text, words):
    (tmp_path / name).write_text(text, errors="surrogateescape")
    with pytest.raises(InputError, match=words):
        read_rows(tmp_path / name)


def test_too_many_cells(tmp_path):
    (tmp_path / "a.csv").write_text("portrait,audio,output\na.png,a,b.wav,c.mp4\na.png,a.wav,d.mp4\n")
    first, second = read_rows(tmp_path / "a.csv")
    assert "4 cells for 3 columns" in first.problem and second.problem is None
