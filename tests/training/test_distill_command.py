"""`distill` as a command: from clips without labels to a student that the library samples in 4 passes."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from dicetalk import cli
from dicetalk.checkpoints.finding import resolve_checkpoint
from dicetalk.checkpoints.student import STUDENT_FILE, Student, write_student

pytest.importorskip("accelerate")
pytest.importorskip("matplotlib")

FRAMES = 3


@pytest.fixture
def command(monkeypatch, capsys):
    monkeypatch.setattr(cli, "COMMANDS", ("distill", "train"))

    def run(*arguments):
        code = cli.main(list(map(str, arguments)))
        return code, *capsys.readouterr()

    return run


def test_a_student_is_made_and_sampled_in_four_passes(command, unlabelled, tiny_checkpoint, tmp_path):
    output = tmp_path / "student"
    arguments = ["distill", unlabelled, "--checkpoint", tiny_checkpoint, "--output", output, "--device", "cpu"]
    arguments += ["--frames", 2, "--trains", "all", "--rate", 1e-3, "--steps", 2]
    code, out, error = command(*arguments)
    assert code == 0, error
    assert "student.json" in out and "| consistency |" in (output / "report" / "report.md").read_text()
    checkpoint = resolve_checkpoint(output)
    assert checkpoint.student == Student(4, 3.0, 6.0, "tiny") and checkpoint.untrained
    before = torch.load(tiny_checkpoint / "DICE-Talk" / "unet.pth")
    after = torch.load(output / "DICE-Talk" / "unet.pth")
    assert before.keys() == after.keys() and any(not torch.equal(each, after[name]) for name, each in before.items())
    assert command(*arguments, "--steps", 3, "--resume")[0] == 0
    steps = [json.loads(line)["step"] for line in (output / "report" / "losses.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3]

    from dicetalk.checkpoints.priors import load_priors
    from dicetalk.media.portrait import prepare_portrait
    from dicetalk.pipeline import DiceTalkPipeline

    pipeline = DiceTalkPipeline.from_checkpoint(output)
    pipeline.set_progress_bar_config(disable=True)
    passes, forward = [], pipeline.unet.forward
    pipeline.unet.forward = lambda given, *args, **more: passes.append(given.shape[:2]) or forward(given, *args, **more)
    picture = Image.fromarray(np.random.RandomState(0).randint(0, 255, (64, 64, 3), np.uint8))
    speech = np.random.RandomState(1).standard_normal(1280 * FRAMES).astype(np.float32) / 10
    given = {"portrait": prepare_portrait(picture, (16, 16, 48, 48), 64), "audio": speech, "output_type": "latent"}
    given |= {"emotion": load_priors(checkpoint.emotions)["happy"], "clamp_windows": True}

    def sampled(seed=5, **more):
        passes.clear()
        return pipeline(**given, **more, generator=torch.Generator().manual_seed(seed)).frames

    latents = sampled()
    assert passes == [(1, FRAMES)] * 4 and latents.isfinite().all()
    asked = {"num_inference_steps": 4, "reference_scale": 1.0, "emotion_scale": 1.0, "sampler": "lcm"}
    assert torch.equal(sampled(**asked), latents)
    sampled(num_inference_steps=2, emotion_scale=2.0, sampler="euler")
    assert passes == [(2, FRAMES)] * 2, "what is given is obeyed"


def test_a_job_is_sampled_as_the_student_says(tiny_checkpoint, tmp_path):
    from dicetalk.job import Job
    from dicetalk.rendering import as_sampled, checkpoint_stamp

    folder = tmp_path / "student"
    shutil.copytree(tiny_checkpoint, folder)
    values = {"portrait": "a.png", "audio": "a.wav", "output": "a.mp4"}
    job = Job.of(values)
    published = as_sampled(job, resolve_checkpoint(folder))
    assert (published.steps, published.sampler) == (25, "euler")
    assert (published.reference_scale, published.emotion_scale) == (3, 6)
    stamps = list(checkpoint_stamp(resolve_checkpoint(folder)))
    write_student(Student(8, 3.0, 6.0, "tiny"), folder / "DICE-Talk")
    checkpoint = resolve_checkpoint(folder)
    own = as_sampled(job, checkpoint)
    assert (own.steps, own.sampler, own.schedule) == (8, "lcm", "karras")
    assert (own.reference_scale, own.emotion_scale) == (1, 1) and as_sampled(own, checkpoint) == own
    fast = as_sampled(Job.of(values | {"speed": "fast", "reference_scale": 2}), checkpoint)
    assert (fast.steps, fast.sampler, fast.reference_scale, fast.emotion_scale) == (12, "euler", 2, 1)
    given = values | {"steps": 25, "sampler": "euler", "reference_scale": 3, "emotion_scale": 6}
    assert as_sampled(Job.of(given), checkpoint) == published, "what is given is obeyed, the published values too"
    assert Job.of(values | {"steps": 25}).digest() != job.digest(), "that is another clip"
    assert len(list(checkpoint_stamp(checkpoint))) == len(stamps) + 1, "a run that resumes needs the same student"


def test_bad_options_and_students_are_one_line(command, unlabelled, tiny_checkpoint, tmp_path):
    def error(*arguments):
        code, _, text = command(*arguments)
        assert code == 2 and text.count("\n") == 1, text
        return text

    start = ["distill", unlabelled, "--checkpoint", tiny_checkpoint, "--output", tmp_path / "out", "--device", "cpu"]
    assert "--passes 26: give 1 to 25" in error(*start, "--passes", 26)
    assert "--strongest 3: give 0 to 2" in error(*start, "--strongest", 3)
    assert "--emotion-scale 21: give 0 to 20" in error(*start, "--emotion-scale", 21)
    assert "--huber 0: give a positive number" in error(*start, "--huber", 0)
    student = tmp_path / "student"
    shutil.copytree(tiny_checkpoint, student)
    write_student(Student(4, 3.0, 6.0, "mine"), student / "DICE-Talk")
    start[3] = student
    assert "is a student of `distill`" in error(*start, "--frames", 2)
    assert "name the one that it was made from, mine" in error("train", *start[1:], "--frames", 2)
    start[3] = tiny_checkpoint
    assert "The clip one has no emotion" in error("train", *start[1:], "--frames", 2)
    (student / "DICE-Talk" / STUDENT_FILE).write_text("damaged")
    start[3] = student
    assert "student.json does not say how the student beside it is sampled" in error(*start, "--frames", 2)
