"""A run that is cut, in whatever way, goes on where it was, and gives what an unbroken one gives."""

import contextlib
import errno
import json
import os
import pickle
import signal
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
import warm
from PIL import Image
from project import ROOT

from dicetalk.cli import main
from dicetalk.errors import InputError
from dicetalk.model.unet import DiceTalkUNet
from dicetalk.pipeline import DiceTalkPipeline
from dicetalk.sampling import resume
from dicetalk.sampling.windows import window_plan

DEMO = ROOT / "demo"
STEPS, FRAMES = 3, 5
WINDOWS = [len(step) for step in window_plan(FRAMES, STEPS)]  # of each step; the UNet is called once for each

REAL = DiceTalkUNet.forward

# Runs the command line with `action` done at the UNet's call number `call`.
DRIVER = """
import os, signal, sys, time
from dicetalk import cli
from dicetalk.sampling import resume
from dicetalk.model.unet import DiceTalkUNet
resume.SECONDS = 0
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs lack
forward, calls = DiceTalkUNet.forward, []
def called(*args, **kwargs):
    calls.append(1)
    if len(calls) == {call}:
        {action}
    return forward(*args, **kwargs)
DiceTalkUNet.forward = called
sys.exit(cli.main(sys.argv[1:]))
"""

# Runs the command line until all pictures are encoded, and kills it before the file is closed.
WRITER = """
import os, signal, sys
from dicetalk import cli
from dicetalk.media import video
flush = video._Pictures.flush
def killed(self):
    flush(self)
    os.kill(os.getpid(), signal.SIGKILL)
video._Pictures.flush = killed
sys.exit(cli.main(sys.argv[1:]))
"""


def light(self, sample, timestep, audio_tokens, **inputs):
    """Stands for the UNet where any function of the same inputs will do."""
    return (sample[:, :, :4] * 0.1 + audio_tokens.mean(dim=(2, 3))[:, :, None, None, None] * timestep,)


@pytest.fixture(scope="module")
def pipeline(tiny_checkpoint):
    return DiceTalkPipeline.from_checkpoint(tiny_checkpoint)


@pytest.fixture(autouse=True)
def quick(monkeypatch, pipeline):
    """Every finished step is written; weights are loaded once; the UNet is light."""
    monkeypatch.setattr(resume, "SECONDS", 0)
    monkeypatch.setattr("dicetalk.rendering.load_pipeline", lambda checkpoint, dtype, device: pipeline)
    monkeypatch.setattr(DiceTalkUNet, "forward", light)


@pytest.fixture
def real_unet(quick, monkeypatch):
    monkeypatch.setattr(DiceTalkUNet, "forward", REAL)


@pytest.fixture(scope="module")
def command(tiny_checkpoint):
    """The arguments of a small run."""

    def arguments(output, **changes):
        options = {
            "portrait": DEMO / "portrait.jpg",
            "audio": DEMO / "speech.flac",
            "emotion": "happy",
            "checkpoint": tiny_checkpoint,
            "output": output,
            "size": 64,
            "steps": STEPS,
            "length": 0.08 * FRAMES,
            "face": "180,60,320,250",
            "reference_scale": 1.0,
            "emotion_scale": 1.0,
            "seed": 3,
            "device": "cpu",
        } | changes
        flags = [(f"--{name.replace('_', '-')}", value) for name, value in options.items() if value is not None]
        return ["generate", *(str(part) for pair in flags for part in pair if part is not True)]

    return arguments


@pytest.fixture
def generate(command, tmp_path, capsys):
    """Runs `dicetalk generate` in this process; returns exit code, standard output and error."""

    def run(**changes):
        code = main(command(**{"output": tmp_path / "out.mp4"} | changes))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture(scope="module")
def videos():
    return {}


@pytest.fixture
def unbroken(command, tmp_path_factory, videos):
    """The file that a run makes which nothing interrupts."""
    real = DiceTalkUNet.forward is REAL
    if real not in videos:
        output = tmp_path_factory.mktemp("unbroken") / "out.mp4"
        assert main(command(output)) == 0
        assert os.listdir(output.parent) == ["out.mp4"]
        videos[real] = output.read_bytes()
    return videos[real]


class Cut(Exception):
    """Stands for a crash of any kind."""


@pytest.fixture
def cut_at(monkeypatch):
    """Raise `error` in a step, counted from 0, never for None. Returns a list that grows by the calls of the UNet."""
    forward = DiceTalkUNet.forward

    def install(step, error=KeyboardInterrupt):
        calls = []
        last = None if step is None else sum(WINDOWS[: step + 1])

        def called(self, *args, **kwargs):
            calls.append(1)
            if len(calls) == last:
                raise error
            return forward(self, *args, **kwargs)

        monkeypatch.setattr(DiceTalkUNet, "forward", called)
        return calls

    return install


@pytest.mark.parametrize("done", [1, 2])
def test_an_interrupted_run_goes_on_and_gives_the_same_file(real_unet, generate, cut_at, unbroken, tmp_path, done):
    cut_at(done)
    code, _, err = generate()
    assert code == 130
    assert "interrupted" in err and f"{done} of {STEPS} steps are kept" in err and "--resume" in err
    assert len(err.strip().splitlines()) == 1
    assert os.listdir(tmp_path) == ["out.mp4.resume"]

    calls = cut_at(None)
    code, out, err = generate(resume=True)
    assert code == 0, err
    assert f"after step {done} of {STEPS}" in out
    assert len(calls) == sum(WINDOWS[done:])
    assert (tmp_path / "out.mp4").read_bytes() == unbroken
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_cut_again_and_again(generate, monkeypatch, unbroken, tmp_path):
    step = resume.Run.step

    def cut(self, *args):
        step(self, *args)
        raise Cut

    with monkeypatch.context() as cuts:
        cuts.setattr(resume.Run, "step", cut)
        for _ in range(STEPS):
            with pytest.raises(Cut):
                generate(resume=True)
        assert generate(resume=True)[0] == 0
    assert (tmp_path / "out.mp4").read_bytes() == unbroken


def test_steps_that_were_not_written_yet_are_kept_on_ctrl_c(generate, cut_at, monkeypatch, tmp_path):
    monkeypatch.setattr(resume, "SECONDS", 3600)
    cut_at(2)
    assert "2 of 3 steps are kept" in generate()[2]
    assert os.listdir(tmp_path) == ["out.mp4.resume"]


def test_nothing_is_kept_before_the_first_step(generate, cut_at, tmp_path):
    cut_at(0)
    code, _, err = generate()
    assert (code, err) == (130, "dicetalk generate: interrupted\n")
    assert os.listdir(tmp_path) == []


def test_without_resume_a_run_starts_anew_and_says_so(generate, cut_at, unbroken, tmp_path):
    cut_at(2)
    generate()
    calls = cut_at(None)
    code, out, _ = generate()
    assert code == 0 and len(calls) == sum(WINDOWS)
    (note,) = [line for line in out.splitlines() if "out.mp4.resume" in line]
    assert "2 steps of an interrupted run" in note and "--resume" in note
    assert (tmp_path / "out.mp4").read_bytes() == unbroken
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_a_run_that_starts_anew_and_is_interrupted_too_costs_the_earlier_one_nothing(generate, cut_at, tmp_path):
    cut_at(2)
    generate()
    earlier = (tmp_path / "out.mp4.resume").read_bytes()
    cut_at(0)
    generate(seed=4)
    assert (tmp_path / "out.mp4.resume").read_bytes() == earlier, "before its first step is kept"
    cut_at(1)
    _, out, err = generate(seed=4)
    assert "keeps them as out.mp4.resume.old" in out and "1 of 3 steps are kept" in err
    assert (tmp_path / "out.mp4.resume.old").read_bytes() == earlier

    os.replace(tmp_path / "out.mp4.resume.old", tmp_path / "out.mp4.resume")
    cut_at(None)
    code, out, err = generate(resume=True)
    assert code == 0 and "after step 2" in out, err
    assert os.listdir(tmp_path) == ["out.mp4"]


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_a_step_that_is_not_finite_ends_the_run_and_is_not_kept(command, tmp_path, monkeypatch, capsys, step):
    kept, calls = [], []

    def breaks(self, sample, *args, **inputs):
        calls.append(1)
        (predicted,) = light(self, sample, *args, **inputs)
        return (predicted * float("nan") if len(calls) > sum(WINDOWS[: step - 1]) else predicted,)

    monkeypatch.setattr(DiceTalkUNet, "forward", breaks)
    monkeypatch.setattr(resume.Run, "step", lambda run, done, latents, carried: kept.append(done))
    assert main(command(tmp_path / "out.mp4")) == 2
    told = capsys.readouterr().err
    assert "error: Sampling gave values that are not finite numbers" in told and "--dtype" in told
    assert "--resume" not in told  # it would come to the same
    assert kept == list(range(1, step)) and os.listdir(tmp_path) == []


def test_resume_without_an_interrupted_run_starts_at_the_beginning(generate, unbroken, tmp_path):
    code, out, _ = generate(resume=True)
    assert code == 0 and "no interrupted run" in out
    assert (tmp_path / "out.mp4").read_bytes() == unbroken


def test_a_run_that_is_done_leaves_no_state_and_the_video_does_not_tell(generate, unbroken):
    assert b'"resume"' not in unbroken


# What must not differ


@pytest.fixture
def half_done(generate, cut_at):
    cut_at(1)
    assert generate()[0] == 130
    return cut_at(None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 4}, ["--seed was 3, now 4"]),
        ({"steps": 5}, ["--steps was 3, now 5"]),
        ({"size": 128}, ["--size was 64, now 128"]),
        ({"emotion": "sad"}, ["another --emotion"]),
        ({"emotion": "0s happy; 0.2s sad"}, ["another --emotion"]),
        ({"emotion_scale": 5}, ["--emotion-scale was 1.0, now 5.0"]),
        ({"reference_scale": 2, "seed": 9}, ["--reference-scale was 1.0, now 2.0", "--seed was 3, now 9"]),
        ({"length": 0.5}, ["another --audio, --start or --length"]),
        ({"start": 0.1}, ["another --audio, --start or --length"]),
        ({"face": "170,60,320,250"}, ["face (--face) was [180"]),
        ({"crop": True}, ["(--crop, --margin) was [0"]),
        ({"dtype": "bfloat16"}, ["--dtype was float32, now bfloat16"]),
    ],
)
def test_other_settings_are_named(generate, half_done, tmp_path, changes, words):
    state = (tmp_path / "out.mp4.resume").read_bytes()
    code, _, err = generate(resume=True, **changes)
    assert code == 2 and not half_done
    assert all(word in err for word in words), err
    assert err.count(" was ") + err.count("another ") == len(words)
    assert "without --resume" in err and len(err.strip().splitlines()) == 1
    assert (tmp_path / "out.mp4.resume").read_bytes() == state


def test_another_picture_or_checkpoint_is_named(generate, half_done, tmp_path, tiny_checkpoint):
    other = Image.open(DEMO / "portrait.jpg").convert("RGB")
    other.putpixel((0, 0), (1, 2, 3))
    other.save(tmp_path / "other.png")
    assert "another --portrait" in generate(resume=True, portrait=tmp_path / "other.png")[2]

    copy = tmp_path / "copy"
    for file in tiny_checkpoint.rglob("*"):
        if file.is_file():
            (copy / file.relative_to(tiny_checkpoint)).parent.mkdir(parents=True, exist_ok=True)
            os.link(file, copy / file.relative_to(tiny_checkpoint))
    unet = next(copy.rglob("unet.*"))
    content = unet.read_bytes()
    unet.unlink()
    unet.write_bytes(content)
    err = generate(resume=True, checkpoint=copy)[2]
    assert "another --checkpoint" in err and "was" not in err


def test_what_does_not_touch_the_sampling_may_differ(generate, half_done, tmp_path):
    code, _, err = generate(resume=True, fps="12.5", decode_chunk_size=3, margin=0.1)
    assert code == 0, err
    assert len(half_done) == sum(WINDOWS[1:])


# Files that are not the state of a run


def truncated(state):
    return state[: len(state) // 2]


def flipped(state):
    return state[:-50] + bytes([state[-50] ^ 1]) + state[-49:]


def with_record(**changes):
    def change(state):
        size = int.from_bytes(state[:8], "little")
        header = json.loads(state[8 : 8 + size])
        record = json.loads(header["__metadata__"]["record"]) | changes
        header["__metadata__"]["record"] = json.dumps(record)
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + state[8 + size :]

    return change


class Code:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        flipped,
        lambda state: b"",
        lambda state: state[:8],
        lambda state: (2**40).to_bytes(8, "little") + state[8:],
        lambda state: pickle.dumps(Code()),
        lambda state: state.replace(b"dicetalk-run", b"dicetalk-fun"),
        lambda state: state.replace(b'"version": "1"', b'"version": "2"'),
        with_record(done=0),
        with_record(done=7),
        with_record(done="2"),
        with_record(settings=[]),
        with_record(computing=None),
        lambda state: state.replace(b"[30, 4, 8, 8]", b"[60, 4, 8, 4]"),
    ],
)
def test_a_damaged_state_is_refused_with_the_remedy(generate, half_done, tmp_path, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    state = tmp_path / "out.mp4.resume"
    content = damage(state.read_bytes())
    assert content != state.read_bytes()
    state.write_bytes(content)
    code, _, err = generate(resume=True)
    assert code == 2 and not half_done
    assert "out.mp4.resume" in err and "delete it" in err and "without --resume" in err
    assert len(err.strip().splitlines()) == 1 and len(err) < 600
    assert os.listdir(tmp_path) == ["out.mp4.resume"]


# After sampling


def state_bytes(frames):
    return 4 * 4 * 8 * 8 * (frames + 25)


@contextlib.contextmanager
def largest_file(size):
    """Files cannot grow past this size, as if the disk were full."""
    resource = pytest.importorskip("resource", reason="this system sets no limit on file sizes")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_starting_anew_replaces_a_damaged_state(generate, tmp_path):
    (tmp_path / "out.mp4.resume").write_bytes(b"damaged")
    code, out, _ = generate()
    assert code == 0 and "out.mp4.resume" in out
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_a_full_disk_while_writing_costs_no_sampling(generate, cut_at, tmp_path):
    plenty = {"length": 1.6, "steps": 1}
    assert generate(**plenty)[0] == 0
    whole = (tmp_path / "out.mp4").read_bytes()
    (tmp_path / "out.mp4").unlink()
    limit = state_bytes(20) + 4096
    assert len(whole) > limit

    with largest_file(limit):
        code, _, err = generate(**plenty)
    assert code == 2
    assert "out.mp4 cannot be written" in err and "All sampling steps are kept" in err and "--resume" in err
    assert len(err.strip().splitlines()) == 1
    assert os.listdir(tmp_path) == ["out.mp4.resume"]

    calls = cut_at(None)
    assert generate(resume=True, **plenty)[0] == 0
    assert not calls
    assert (tmp_path / "out.mp4").read_bytes() == whole
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_a_state_that_cannot_be_written_is_told_once_and_the_run_goes_on(generate, unbroken, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(resume, "digest", lambda *parts: "")  # which is asked for at the beginning, too
    monkeypatch.setattr(resume, "memoryview", full, raising=False)
    code, _, err = generate()
    assert code == 0
    assert err.count("Note: ") == 1 and "out.mp4.resume cannot be written: the disk is full. This run could" in err
    assert (tmp_path / "out.mp4").read_bytes() == unbroken


def test_a_disk_that_is_too_full_for_the_state_is_told_before_the_work(generate, tmp_path, monkeypatch):
    monkeypatch.setattr("dicetalk.rendering.load_pipeline", lambda *_: pytest.fail("the weights were loaded"))
    usage = type("usage", (), {"free": 2 * state_bytes(5) - 1})
    monkeypatch.setattr("dicetalk.files.shutil.disk_usage", lambda folder: usage)
    code, _, err = generate()
    assert code == 2 and "free disk space" in err
    assert os.listdir(tmp_path) == []


def test_a_folder_that_goes_while_sampling_costs_nothing(generate, unbroken, tmp_path, monkeypatch):
    folder = tmp_path / "videos"
    folder.mkdir()
    forward = DiceTalkUNet.forward

    def called(self, *args, **kwargs):
        if folder.exists():
            for left in folder.iterdir():
                left.unlink()
            folder.rmdir()
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(DiceTalkUNet, "forward", called)
    assert generate(output=folder / "out.mp4")[0] == 0
    assert (folder / "out.mp4").read_bytes() == unbroken
    assert os.listdir(folder) == ["out.mp4"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), Cut("decoder broke")])
def test_a_failed_decoding_costs_no_sampling(generate, pipeline, cut_at, unbroken, tmp_path, monkeypatch, error):
    def broken(*args, **kwargs):
        raise error

    with monkeypatch.context() as broken_decoder:
        broken_decoder.setattr(pipeline.vae, "decode", broken)
        if isinstance(error, torch.OutOfMemoryError):
            code, _, err = generate()
            assert code == 2
            assert "is too small for decoding even" in err and "--resume" in err
        else:
            with pytest.raises(Cut):
                generate()
    assert os.listdir(tmp_path) == ["out.mp4.resume"]

    calls = cut_at(None)
    code, _, err = generate(resume=True)
    assert code == 0, err
    assert not calls
    assert (tmp_path / "out.mp4").read_bytes() == unbroken


def test_finished_latents_may_be_decoded_elsewhere(tmp_path):
    finished, latents = {"--seed": 1}, torch.randn(26, 4, 8, 8)
    run = resume.Run(tmp_path / "a.mp4", finished, {"--device": "cuda"}, 2, latents.shape)
    run.step(1, latents)
    with pytest.raises(InputError, match="--device was cuda, now cpu"):
        resume.Run(tmp_path / "a.mp4", finished, {"--device": "cpu"}, 2, latents.shape).load()
    run.step(2, latents)
    done, kept, carried = resume.Run(tmp_path / "a.mp4", finished, {"--device": "cpu"}, 2, latents.shape).load()
    assert done == 2 and torch.equal(kept, latents) and carried == {}


def test_what_is_written_is_not_held_any_longer(tmp_path):
    latents = torch.zeros(2, 4, 1, 1)
    held = weakref.ref(latents)
    run = resume.Run(tmp_path / "a.mp4", {}, {}, 1, latents.shape)
    run.step(1, latents)
    del latents
    assert held() is None and run.finished and "All sampling steps are kept" in run.rescue()


def test_what_the_next_steps_take_up_is_kept_too(tmp_path):
    latents, solver, guidance = torch.randn(3, 26, 4, 8, 8)
    run = resume.Run(tmp_path / "a.mp4", {}, {}, 3, latents.shape, tensors=3)
    run.step(1, latents, {"solver": solver, "guidance": guidance})
    again = resume.Run(tmp_path / "a.mp4", {}, {}, 3, latents.shape)
    done, kept, carried = again.load()
    assert done == 1 and torch.equal(kept, latents) and set(carried) == {"solver", "guidance"}
    assert torch.equal(carried["solver"], solver) and torch.equal(carried["guidance"], guidance)
    data = (tmp_path / "a.mp4.resume").read_bytes()
    (tmp_path / "a.mp4.resume").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(InputError, match="contents have changed"):
        again.load()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells which files are mapped")
def test_latents_that_were_read_hold_no_file(tmp_path):
    latents = torch.randn(26, 4, 8, 8)
    resume.Run(tmp_path / "a.mp4", {}, {}, 1, latents.shape).step(1, latents)
    _, kept, _ = resume.Run(tmp_path / "a.mp4", {}, {}, 1, latents.shape).load()
    assert str(tmp_path / "a.mp4") not in Path("/proc/self/maps").read_text(), "Windows could not replace it"
    assert torch.equal(kept, latents)


def test_steps_in_quick_succession_are_not_all_written(tmp_path):
    latents = torch.randn(26, 4, 8, 8)
    run = resume.Run(tmp_path / "a.mp4", {}, {}, 100, latents.shape, seconds=3600)
    for done in range(1, 100):
        run.step(done, latents + done)
    assert os.listdir(tmp_path) == []
    run.step(100, latents)
    assert os.listdir(tmp_path) == ["a.mp4.resume"]
    assert np.array_equal(run.load()[1], latents)


# Real processes


def start(command, output, step, action):
    """The command line in its own process, with `action` done at the last call of the UNet in a step."""
    return launch(DRIVER.format(call=sum(WINDOWS[: step + 1]), action=action), command, output)


def launch(driver, command, output):
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}  # its numbers, to the last bit
    return warm.start(driver, *command(output), environment=environment)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="a signal of POSIX")
def test_killed_and_resumed(real_unet, command, generate, cut_at, unbroken, tmp_path):
    process = start(command, tmp_path / "out.mp4", 2, "os.kill(os.getpid(), signal.SIGKILL)")
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == ["out.mp4.resume"]

    for name in ("out.mp4.resume", "out.mp4"):  # as if it had been killed while it wrote
        (tmp_path / f".{name}.{process.pid}-0123abcd.part").write_bytes(b"half")
    calls = cut_at(None)
    assert generate(resume=True)[0] == 0
    assert len(calls) == WINDOWS[2]
    assert (tmp_path / "out.mp4").read_bytes() == unbroken
    assert os.listdir(tmp_path) == ["out.mp4"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="a signal of POSIX")
def test_killed_while_the_video_is_written(real_unet, command, generate, cut_at, unbroken, tmp_path):
    process = launch(WRITER, command, tmp_path / "out.mp4")
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    left, state = sorted(os.listdir(tmp_path))
    assert left.startswith(f".out.mp4.{process.pid}-") and left.endswith(".part") and state == "out.mp4.resume"

    calls = cut_at(None)
    assert generate(resume=True)[0] == 0
    assert not calls
    assert (tmp_path / "out.mp4").read_bytes() == unbroken
    assert os.listdir(tmp_path) == ["out.mp4"]


@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C to a whole console")
def test_ctrl_c_ends_at_once_without_a_traceback(command, tmp_path):
    process = start(command, tmp_path / "out.mp4", 2, "print('working', flush=True); time.sleep(600)")
    while "working" not in (line := process.stdout.readline()):
        assert line, process.stderr.read()
    before = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - before < 10
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.strip().splitlines()[-1].startswith("dicetalk generate: interrupted. 2 of 3 steps are kept in ")
    assert os.listdir(tmp_path) == ["out.mp4.resume"]
