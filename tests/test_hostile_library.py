"""The rows of the table of hostile input that need no ComfyUI."""

import socket

import hostile_table
import pytest
from hostile_table import CHECKPOINTS, LIBRARY, PLAYLIST, check, heard, refusal


def test_no_two_rows_are_called_the_same():
    names = [row.what for row in (*LIBRARY, *CHECKPOINTS)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("row", LIBRARY, ids=lambda row: row.what)
def test_input(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(row, tmp_path)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("row", CHECKPOINTS, ids=lambda row: row.what)
def test_checkpoint(row, tmp_path, tiny_checkpoint, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(row, tmp_path, tiny_checkpoint)


def test_the_code_in_the_pickles_would_run_elsewhere(tmp_path):
    import pickle

    pickle.loads(pickle.dumps(hostile_table.Runs(tmp_path)))
    assert (tmp_path / "ran").is_dir()


@pytest.mark.parametrize("name", ["a.m3u8", "a.wav"])
def test_a_playlist_of_addresses_reaches_no_network(tmp_path, name):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/a.ts"
        (tmp_path / name).write_bytes(PLAYLIST % address.encode())
        assert name in refusal(heard(), tmp_path / name)
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.accept()
