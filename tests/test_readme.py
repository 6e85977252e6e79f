"""The README's Python, run as it stands there but for its size."""

import os
import re
import subprocess
import sys

import av
from project import ROOT


def test_the_example_in_python_makes_a_video(tiny_checkpoint, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    small = {"short_side=512": "short_side=64", "num_inference_steps=25": "num_inference_steps=1"}
    for value, other in small.items():
        assert code.count(value) == 1
        code = code.replace(value, other)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "tiny").symlink_to(tiny_checkpoint, target_is_directory=True)
    (tmp_path / "demo").symlink_to(ROOT / "demo", target_is_directory=True)
    # HOME: no checkpoint of this machine's.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "COMFYUI_PATH": ""}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    with av.open(tmp_path / "talking.mp4") as video, av.open(ROOT / "demo" / "speech.flac") as speech:
        assert sum(1 for _ in video.decode(video=0)) == 44
        assert video.streams.audio[0].rate == speech.streams.audio[0].rate


def words(text):
    """The words of a page that a reader sees outside of its blocks of code: no markup, no addresses."""
    text = re.sub(r"^( *)(```|~~~).*?^ *\2[^\n]*$", "", text, flags=re.M | re.S)
    text = re.sub(r"!?\[([^\[\]]*)\]\([^()]*\)", r"\1", text)  # a link or a picture is its text
    return [word for word in text.split() if re.search(r"\w", word)]


def test_the_readme_is_short():
    shown = words((ROOT / "README.md").read_text(encoding="utf-8"))
    assert "Install" in shown and "Python" in shown
    assert len(shown) <= 900


def test_words_are_those_that_a_reader_sees():
    text = "# One two\n\n```sh\nnot this\n```\n| three | **four** |\n|---|---|\n[five six](seven.md) - `eight`"
    text += "\n![nine](x.png)"
    assert [word.strip("*`") for word in words(text)] == "One two three four five six eight nine".split()
