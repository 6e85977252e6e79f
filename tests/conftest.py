"""Fixtures that several test modules share."""

import pytest


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """Folder of a complete tiny, untrained checkpoint. Not to be written into."""
    from dicetalk.tiny import write_tiny_checkpoint

    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    write_tiny_checkpoint(folder)
    return folder
