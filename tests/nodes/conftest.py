"""What the tests of the nodes share, besides the server of tests/conftest.py."""

import sys

import pytest
import torch
from comfy_process import ON_GPU, load_pack
from project import ROOT


@pytest.fixture(autouse=True, scope="module")
def threads():
    """A module that computes on one thread leaves the others as they were."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def pack(comfyui):
    """The pack, imported into this process beside ComfyUI's own classes; DICETALK_TESTS_ON=gpu lets them use a GPU."""
    torch.backends.cudnn.allow_tf32 = False
    return load_pack(comfyui, ROOT, cpu=not ON_GPU)


@pytest.fixture(scope="session")
def comfy_nodes(comfyui, pack):
    """ComfyUI's module of core nodes, which other modules of its import too, whatever else is called `nodes` here."""
    sys.path.insert(0, str(comfyui))
    try:
        import nodes
    finally:
        sys.path.remove(str(comfyui))
    assert hasattr(nodes, "KSampler")
    return nodes
