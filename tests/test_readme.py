"""The README's Python, run as it stands there but for its size."""

import re
from pathlib import Path

import av

ROOT = Path(__file__).parents[1]


def test_the_example_in_python_makes_a_video(tiny_checkpoint, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    small = {"short_side=512": "short_side=64", "num_inference_steps=25": "num_inference_steps=1"}
    for value, other in small.items():
        assert code.count(value) == 1
        code = code.replace(value, other)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "tiny").symlink_to(tiny_checkpoint, target_is_directory=True)
    (tmp_path / "demo").symlink_to(ROOT / "demo", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))  # no checkpoint of this machine's
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    exec(compile(code, "README.md", "exec"), {})
    with av.open("talking.mp4") as video:
        assert sum(1 for _ in video.decode(video=0)) == 43
        assert video.streams.audio[0].rate == av.open("demo/speech.flac").streams.audio[0].rate
