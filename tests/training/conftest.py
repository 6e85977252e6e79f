"""What the tests of training and of distillation share."""

import pytest
import torch
from prepared import write_clips

from dicetalk.training.dataset import PreparedClips


@pytest.fixture(scope="module")
def accelerator():
    return pytest.importorskip("accelerate").Accelerator(cpu=True)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips of four frames or more, of `prepared.write_clips`."""
    return PreparedClips(write_clips(tmp_path_factory.mktemp("clips")), 4)


@pytest.fixture(autouse=True)
def one_thread():
    """With which sums are added in the same order."""
    torch.set_num_threads(1)
