"""Fixtures that several test modules share."""

import pytest
from hypothesis import settings

settings.register_profile("same", derandomize=True)  # the same examples every time: a failure is the change's own
settings.load_profile("same")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """Folder of a complete tiny, untrained checkpoint. Not to be written into."""
    from dicetalk.tiny import write_tiny_checkpoint

    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    write_tiny_checkpoint(folder)
    return folder
