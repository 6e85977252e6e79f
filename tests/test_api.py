"""What `from dicetalk import …` gives, and that the page of its docstrings can be made."""

import inspect
import subprocess
import sys

import pytest
from project import DEMO

import dicetalk
from dicetalk import DiceTalkPipeline, InputError


@pytest.mark.parametrize("name", dicetalk.__all__)
def test_every_name_is_there_and_explained(name):
    value = getattr(dicetalk, name)
    assert inspect.getdoc(value), f"{name} has no docstring"
    assert not inspect.ismodule(value)


@pytest.mark.parametrize("code", ["import dicetalk", "from dicetalk.cli import parser; parser()"])
def test_importing_the_package_and_its_options_loads_no_library(code):
    """In a process of its own, which has loaded none before."""
    code += "; import sys; print([name for name in ('torch', 'numpy', 'diffusers', 'av') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_pipeline_reads_emotions_as_text(tiny_checkpoint, monkeypatch):
    pipeline = DiceTalkPipeline.from_checkpoint(tiny_checkpoint)
    happy = pipeline.read_emotion("happy:1.3")
    assert (happy.mean - pipeline.read_emotion("happy").mean).abs().max() > 0
    given = {}
    monkeypatch.setattr(pipeline, "_require_memory", lambda portrait, audio, emotion, *_: given.update(it=emotion))
    monkeypatch.setattr(pipeline, "encode", lambda *args: 1 / 0)
    portrait = dicetalk.load_portrait(DEMO / "portrait.jpg", short_side=64)
    with pytest.raises(ZeroDivisionError):
        pipeline(portrait, dicetalk.load_audio(DEMO / "speech.flac"), "happy:1.3")
    assert (given["it"].mean == happy.mean).all()


def test_text_needs_a_checkpoint(tiny_checkpoint):
    pipeline = DiceTalkPipeline.from_checkpoint(tiny_checkpoint)
    with pytest.raises(InputError, match="emotoin"):
        pipeline.read_emotion("emotoin")
    alone = DiceTalkPipeline(**pipeline.components)
    with pytest.raises(InputError, match="from_checkpoint.*give an Emotion"):
        alone.read_emotion("happy")


def test_a_job_is_rendered(tiny_checkpoint, tmp_path):
    job = dicetalk.Job(
        portrait=DEMO / "portrait.jpg",
        audio=DEMO / "speech.flac",
        emotion="sad",
        output=tmp_path / "sad.mp4",
        checkpoint=tiny_checkpoint,
        length=0.3,
        size=64,
        steps=1,
    )
    said = []
    made = dicetalk.render(job, say=said.append)
    assert (made.frames, made.width, made.height) == (8, 64, 64) and made.seconds == 0.32
    assert any("untrained" in line for line in said)
    from dicetalk.media.container import read_metadata

    assert job.digest() in read_metadata(job.output)["dicetalk"]


def test_the_page_of_the_api_is_made(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pdoc", "dicetalk", "!dicetalk.commands", "-o", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "dicetalk.html").read_text(encoding="utf-8")
    for name in dicetalk.__all__:
        assert f'id="{name}"' in page, name
