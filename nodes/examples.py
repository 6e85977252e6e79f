"""The files that the example workflows name, in ComfyUI's input folder."""

import logging
import shutil
from pathlib import Path

import folder_paths

from ..dicetalk.files import written_beside

_DEMO = Path(__file__).resolve().parents[1] / "demo"
EXAMPLES = ("portrait.jpg", "speech.flac", "reference.mp4", "two.jpg", "drawn_portrait.png", "drawn_speech.flac")


def example_name(name):
    """What a file of `demo/` is called in the input folder, where others have files too."""
    return f"dicetalk_{name}"


def place_examples():
    """Copy the examples there; a file that has the name already stays, and a folder that is read-only is no error."""
    folder = Path(folder_paths.get_input_directory())
    for name in EXAMPLES:
        target = folder / example_name(name)
        if target.exists() or not (_DEMO / name).is_file():
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with written_beside(target) as part:
                shutil.copyfile(_DEMO / name, part)
        except (OSError, ValueError) as problem:
            logging.warning("DICE-Talk: the example %s could not be put into %s: %s", target.name, folder, problem)
