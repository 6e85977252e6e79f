"""Fixtures that several test modules share."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings
from project import ROOT

# The same examples every time: a failure is the change's own, and not a busy machine's.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("deep", max_examples=10_000, deadline=None)  # by hand: --hypothesis-profile=deep
settings.load_profile("same")


# A folder for each process: two that compile the same function of librosa at once must not read what is half written.
COMPILED = ROOT / ".cache" / f"numba-{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
os.environ["NUMBA_CACHE_DIR"] = str(COMPILED)
SHARED = ROOT / ".cache" / "numba-shared"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol():
    """What one process has compiled, which takes half a minute, another one takes before a test of its own."""
    _copy_folder(SHARED, COMPILED)
    result = yield
    _copy_folder(COMPILED, SHARED)
    return result


def _copy_folder(folder, to):
    """Whole or not at all, and only where there is none."""
    if folder.is_dir() and not to.exists():
        part = to.with_name(f"{to.name}.{os.getpid()}.part")
        shutil.copytree(folder, part, dirs_exist_ok=True)
        with contextlib.suppress(OSError):  # another process was quicker
            part.rename(to)
        shutil.rmtree(part, ignore_errors=True)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """Folder of a complete tiny, untrained checkpoint. Not to be written into."""
    from dicetalk.checkpoints.tiny import write_tiny_checkpoint

    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    write_tiny_checkpoint(folder)
    return folder


@pytest.fixture
def one_thread():
    """One of PyTorch's, as processes of their own have in tests: another number changes the last bits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def comfyui():
    """ComfyUI's folder. Without one in $COMFYUI_PATH the tests that need it are skipped."""
    folder = Path(os.environ.get("COMFYUI_PATH") or "nowhere")
    if not (folder / "main.py").is_file():
        pytest.skip("no ComfyUI found: set COMFYUI_PATH to a ComfyUI folder")
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory, tiny_checkpoint, comfyui):
    """A running ComfyUI with the tiny checkpoint, a VAE and a CLIP vision tower of random weights, and the examples."""
    from comfy_server import furnished

    server = furnished(comfyui, ROOT, tmp_path_factory.mktemp("comfyui"), tiny_checkpoint)
    yield server
    server.stop()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Of several processes each takes one file after another, and one takes all those of the page, which share it."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return "browser" if nodeid.startswith("browser/") else super()._split_scope(nodeid)

    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Add the end of the server's log to the report of a failed test."""
    report = yield
    server = getattr(item, "funcargs", {}).get("server")
    if report.failed and hasattr(server, "log_tail"):
        report.sections.append(("end of ComfyUI's log", server.log_tail()))
    return report
