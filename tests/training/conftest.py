"""What the tests of training and of distillation share."""

import pytest
import torch
from prepared import write_clips

from dicetalk.training.dataset import SHARD, PreparedClips, Record, write_shard


@pytest.fixture(scope="module")
def accelerator():
    return pytest.importorskip("accelerate").Accelerator(cpu=True)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips of four frames or more, of `prepared.write_clips`."""
    return PreparedClips(write_clips(tmp_path_factory.mktemp("clips")), 4)


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory):
    """A clip of the tiny checkpoint's sizes; nobody has said what it shows."""
    folder = tmp_path_factory.mktemp("unlabelled")
    random = torch.Generator().manual_seed(0)
    parts = {"latents": torch.randn(4, 4, 8, 8, generator=random), "clip": torch.randn(4, 1024, generator=random)}
    parts |= {"audio": torch.randn(4, 10, 5, 16, generator=random)}
    parts |= {"face_mask": torch.full((64, 64), 255, dtype=torch.uint8)}
    write_shard(folder / SHARD.format(0), [(Record("one", "", 0, "ann", "train", 4, (8, 8)), parts)])
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    """With which sums are added in the same order."""
    torch.set_num_threads(1)
