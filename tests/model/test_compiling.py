"""Blocks that are compiled: the same numbers, and nothing compiled again for another length of clip."""

import copy
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image
from prepared import CONFIG
from project import ROOT

from dicetalk import cli
from dicetalk.emotion.value import Emotion
from dicetalk.errors import InputError
from dicetalk.measure.first_step import _measured, print_first_step, share_of_gain
from dicetalk.measure.first_step import table as first_step_table
from dicetalk.measure.verify import fill
from dicetalk.media.portrait import prepare_portrait
from dicetalk.model import compiling
from dicetalk.model.audio import SAMPLES_PER_FRAME
from dicetalk.model.compiling import CACHE_VARIABLE, compile_regions, graphs
from dicetalk.model.unet import DiceTalkUNet
from dicetalk.rendering import load_pipeline
from dicetalk.sampling.conditions import Conditions
from dicetalk.sampling.counting import COMPILED, DICETALK, REGIONS, Workload
from dicetalk.sampling.loop import sample
from dicetalk.sampling.schedules import make_scheduler
from dicetalk.sampling.speed import Savings

SMALL = {name: tuple(value) if isinstance(value, list) else value for name, value in CONFIG["unet"].items()}


def conditions(frames):
    random = torch.Generator().manual_seed(frames)

    def normal(*shape):
        return torch.randn(shape, generator=random)

    return Conditions(
        image_latent=normal(1, 4, 4, 4),
        clip_embeds=normal(1, 8),
        audio_tokens=normal(frames, 2, 8),
        uncond_audio_tokens=normal(1, 2, 8),
        emotion_tokens=normal(1, 2, 8),
        uncond_emotion_tokens=normal(1, 2, 8),
        face_mask=torch.ones(1, 1, 32, 32),
        pose_features=normal(1, 32, 4, 4),
    )


@pytest.fixture
def plain():
    return fill(DiceTalkUNet(**SMALL))


@pytest.fixture
def quick(request, monkeypatch):
    """All of `torch.compile` that makes graphs, and not Inductor, which takes most of the time."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    backend = getattr(request, "param", "eager")
    compiled = {kind: torch.compile(kind.forward, dynamic=False, backend=backend) for kind in compiling._COMPILED}
    monkeypatch.setattr(compiling, "_compiled", compiled.__getitem__)
    monkeypatch.setattr(compiling, "_require_compiler", lambda device: None)
    monkeypatch.setenv(CACHE_VARIABLE, "unused")
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "quick", ["aot_eager"], indirect=True
)  # which moves what is written in place, as Inductor does
@torch.no_grad()
def test_one_graph_for_each_kind_and_shape_whatever_the_clip_and_the_weights(plain, quick):
    unet = compile_regions(copy.deepcopy(plain), window=4)
    assert list(unet.state_dict()) == list(plain.state_dict())

    def new_graphs(frames, **options):
        """Sampling a clip, in windows of four frames."""
        before, results = graphs()[0], []
        for network in (unet, plain):
            noise = torch.randn(frames + 4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
            at_hand = conditions(frames), noise, make_scheduler("euler")
            results.append(sample(network, *at_hand, 2, window=4, shift=1, **options))
        torch.testing.assert_close(*results, rtol=1e-3, atol=1e-3)
        return graphs()[0] - before

    blocks = [each for each in unet.modules() if type(each) in compiling._COMPILED.values()]
    # At either level: a transformer, a residual block on the way down and in the middle, and one on the way up.
    assert len(blocks) == 12 and new_graphs(5) == 6
    assert [new_graphs(frames) for frames in (6, 11)] == [0, 0]
    assert [new_graphs(frames, savings=Savings(clamp_windows=True)) for frames in (2, 6)] == [0, 0]
    for network in (unet, plain):  # as a LoRA does that is merged
        for parameter in network.parameters():
            parameter.mul_(0.9)
    assert new_graphs(5) == 0
    assert not torch._dynamo.utils.counters["graph_break"]


INDUCTOR = """
import json, multiprocessing, torch, torch._inductor.compile_fx
from test_compiling import SMALL
from dicetalk.measure.verify import fill
from dicetalk.model import compiling
from dicetalk.model.unet import DiceTalkUNet
torch.set_num_threads(1)
compiling._require_compiler = lambda device: None
plain, compiled = (fill(DiceTalkUNet(**SMALL)) for _ in range(2))
compiling.compile_regions(compiled, 3)

@torch.no_grad()
def compare():
    random = torch.Generator().manual_seed(0)
    x, embedding = (torch.randn(shape, generator=random) for shape in ((6, 32, 4, 4), (6, 128)))
    expected, found = (
        unet.mid_block.resnets[0](x.clone(), embedding, torch.zeros(2, 3)) for unet in (plain, compiled)
    )
    print(json.dumps([(found - expected).abs().max().item(), *compiling.graphs()]), flush=True)

for _ in range(2):
    process = multiprocessing.get_context("fork").Process(target=compare)
    process.start()
    process.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork processes")
def test_a_second_process_finds_on_the_disk_what_inductor_compiled(tmp_path):
    """A single block, as a compiler for the CPU is slow; `bench --compile` does the same with a whole UNet."""
    script = tmp_path / "one.py"
    script.write_text(INDUCTOR)
    paths = os.pathsep.join(str(ROOT / part) for part in (".", "tests/model", "tests/helpers"))
    quickest = {"TORCHINDUCTOR_VEC_ISA_OK": "0", "TORCHINDUCTOR_COMPILE_THREADS": "1", "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **quickest, "PYTHONPATH": paths, CACHE_VARIABLE: str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment)
    if "InvalidCxxCompiler" in done.stderr:
        pytest.skip("PyTorch finds no C++ compiler")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 2, done.stderr[-2000:]
    assert all(error < 1e-5 for error, *_ in found)
    assert [counts for _, *counts in found] == [[1, 1], [1, 0]], "graphs, and those that were not on the disk"


def test_where_nothing_compiles_one_line_says_so(plain, monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError("no compiler\nmore of it")

    monkeypatch.setenv(CACHE_VARIABLE, "unused")
    monkeypatch.setattr(torch, "compile", fails)
    with pytest.raises(InputError, match="cannot compile for cpu here .no compiler") as error:
        compile_regions(plain, window=4)
    assert "\n" not in str(error.value)


def test_after_warm_up_a_clip_compiles_nothing(quick, tiny_checkpoint, monkeypatch, capsys):
    pipelines = []

    def load(*args, **kwargs):
        pipelines.append(load_pipeline(*args, **kwargs))
        return pipelines[-1]

    monkeypatch.setattr(cli, "COMMANDS", ("warm-up",))
    monkeypatch.setattr("dicetalk.rendering.load_pipeline", load)
    assert cli.main(["warm-up", "--checkpoint", str(tiny_checkpoint), "--size", "64", "--device", "cpu"]) == 0
    said = re.search(r"(\d+) graphs in [\d.]+ s: \d+ compiled", capsys.readouterr().out)
    before = graphs()[0]
    assert int(said[1]) == before > 0
    speech = np.zeros(30 * SAMPLES_PER_FRAME, np.float32)
    picture = prepare_portrait(Image.new("RGB", (64, 64)), (0.25, 0.25, 0.75, 0.75), 64)
    pipelines[0](picture, speech, Emotion(np.zeros(256)), num_inference_steps=2, output_type="latent")
    assert graphs()[0] == before


@torch.no_grad()
def test_a_first_step_is_measured_beside_the_step_that_is_not_compiled(quick, capsys):
    print_first_step(json.dumps(asdict(Workload(64, 64, 2, network=SMALL)) | {"dtype": "float32"}), "cpu")
    step = json.loads(capsys.readouterr().out)
    assert step["seconds"] > 0 and step["graphs"] == 6 and step["error"] < 1e-5


def test_the_table_of_first_steps_shows_targets():
    steps = {"cold": {"seconds": 24.0, "graphs": 18, "compiled": 18, "error": 0.001}}
    steps["cached"] = steps["cold"] | {"seconds": 6.0, "compiled": 0}
    networks = {DICETALK: {"seconds": 4.0}, COMPILED: {"seconds": 3.0}, REGIONS: {"seconds": 3.1}}
    lines = [line.split() for line in first_step_table(steps, share_of_gain(networks)).splitlines()]
    ends = [line[-3:] for line in lines]
    assert ["24.0", "≤", "30"] in ends and ["6.0", "≤", "10"] in ends and ["0.90", "≥", "0.95"] in ends
    assert lines[3][-1] == "0.25"
    assert share_of_gain(networks | {COMPILED: {"seconds": 4.5}}) is None


def test_a_first_step_that_fails_says_why():
    with pytest.raises(InputError, match="failed .no room.: leave out --compile"):
        _measured([sys.executable, "-c", "raise SystemExit('no room')"], dict(os.environ))
