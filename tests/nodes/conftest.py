"""The server that the tests of the nodes share. Without a ComfyUI in $COMFYUI_PATH these tests are skipped."""

import os
from pathlib import Path

import comfy_files
import pytest
from comfy_process import load_pack
from comfy_server import ComfyServer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def comfyui():
    """ComfyUI's folder."""
    folder = Path(os.environ.get("COMFYUI_PATH") or "nowhere")
    if not (folder / "main.py").is_file():
        pytest.skip("no ComfyUI found: set COMFYUI_PATH to a ComfyUI folder")
    return folder


@pytest.fixture(scope="session")
def pack(comfyui):
    """The pack, imported into this process beside ComfyUI's own classes."""
    return load_pack(comfyui, ROOT)


@pytest.fixture(scope="session")
def server(tmp_path_factory, tiny_checkpoint, comfyui):
    """A running ComfyUI with the tiny checkpoint, a VAE and a CLIP vision tower of random weights, and the examples."""
    base = tmp_path_factory.mktemp("comfyui")
    server = ComfyServer(comfyui, ROOT, base)
    (base / "models" / "dicetalk" / "tiny").symlink_to(tiny_checkpoint.resolve(), target_is_directory=True)
    comfy_files.write_svd_vae(base / "models" / "vae" / "svd_vae.safetensors")
    comfy_files.write_small_vae(base / "models" / "vae" / "small_vae.safetensors")
    comfy_files.write_clip_vision(base / "models" / "clip_vision" / "clip_vision_h.safetensors")
    server.start()
    server.upload(ROOT / "examples" / "portrait.jpg")
    server.upload(ROOT / "examples" / "speech.flac")
    yield server
    server.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Add the end of the server's log to the report of a failed test."""
    report = yield
    server = getattr(item, "funcargs", {}).get("server")
    if report.failed and isinstance(server, ComfyServer):
        report.sections.append(("end of ComfyUI's log", server.log_tail()))
    return report
