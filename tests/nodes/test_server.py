"""The first row of nodes in a real ComfyUI server."""

import copy
import json
import shutil
import time
from fractions import Fraction

import av
import numpy as np
import pytest
from comfy_server import Interrupted, PromptError
from PIL import Image
from project import GRAPHS

QUICK_START = json.loads((GRAPHS / "quick_start.json").read_text())
NODES = {
    "DiceTalkLoader",
    "DiceTalkAudioFeatures",
    "DiceTalkPortrait",
    "DiceTalkEmotion",
    "DiceTalkGuider",
    "DiceTalkSampler",
}
# Seconds within which a cancelled run must end; a window of the tiny network takes well under one on an idle CPU.
CANCEL_SECONDS = 20


def quick_start(**changes):
    """The quick-start graph; changes are given as node class → inputs."""
    graph = copy.deepcopy(QUICK_START)
    for node in graph.values():
        node["inputs"].update(changes.get(node["class_type"], {}))
    return graph


CATEGORIES = {f"DICE-Talk/{each}" for each in ("loaders", "input", "emotion", "sampling", "video")}


def read_video(path):
    """Frames, frame rate and seconds of sound of a video file."""
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        seconds = float(audio.duration * audio.time_base)
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)], video.average_rate, seconds


def test_every_node_is_there_with_all_its_help(server):
    shown = server.get("/object_info")
    assert NODES <= shown.keys()
    for name in (name for name in shown if name.startswith("DiceTalk")):
        node = shown[name]
        assert node["category"] in CATEGORIES
        assert "DICE-Talk" in node["display_name"]
        assert node["description"]
        assert node["search_aliases"]
        inputs = node["input"]["required"] | node["input"].get("optional", {})
        assert inputs
        for input_name, (_, *options) in inputs.items():
            assert options and options[0].get("tooltip"), f"{name}.{input_name} has no tooltip"
        assert all(node["output_tooltips"]), f"{name} has outputs without a tooltip"


def test_server_started_clean(server):
    log = server.log_text()
    assert "IMPORT FAILED" not in log
    assert "Traceback" not in log.split("Starting server")[0]


def test_quick_start_makes_a_video(server):
    steps = []

    def on_message(message):
        if message["type"] == "progress" and message["data"]["node"] == "9":
            steps.append((message["data"]["value"], message["data"]["max"]))

    # A seed of its own: ComfyUI keeps what another test's graph made, and a node that does not run tells no progress.
    outputs = server.run(quick_start(DiceTalkSampler={"seed": 20_261_128}), on_message=on_message)

    frames, rate, seconds = read_video(server.saved_file({"12": outputs["12"]}))
    assert [frame.shape for frame in frames] == [(64, 64, 3)] * 7
    assert rate == Fraction(25, 2)
    assert abs(seconds - 7 / 12.5) <= 1 / 12.5
    assert any(np.any(frame != frames[0]) for frame in frames[1:])
    assert steps[-1][0] == steps[-1][1]
    log = server.log_text()
    assert "Missing VAE keys" not in log
    assert "missing clip vision" not in log


def test_cancelled_run_stops_and_the_next_one_works(server):
    cancelled = []

    def on_message(message):
        if message["type"] == "progress" and message["data"]["node"] == "9" and not cancelled:
            cancelled.append(time.monotonic())
            server.interrupt()

    with pytest.raises(Interrupted):
        server.run(quick_start(DiceTalkSampler={"steps": 1000, "seed": 1}), on_message=on_message)
    assert time.monotonic() - cancelled[0] < CANCEL_SECONDS

    outputs = server.run(quick_start(DiceTalkSampler={"steps": 1, "seed": 2}))
    frames, _, _ = read_video(server.saved_file({"12": outputs["12"]}))
    assert len(frames) == 7


def test_missing_checkpoint_is_told_before_anything_runs(server):
    with pytest.raises(PromptError) as refused:
        server.run(quick_start(DiceTalkLoader={"checkpoint": "nowhere"}))
    text = str(refused.value)
    assert "nowhere" in text
    assert "models/dicetalk" in text.replace("\\\\", "/")
    assert "dicetalk download" in text
    assert server.get("/system_stats")


def test_unknown_weight_type_is_refused_before_anything_runs(server):
    with pytest.raises(PromptError, match="weight_dtype"):
        server.run(quick_start(DiceTalkLoader={"weight_dtype": "fp7"}))


def test_broken_checkpoint_is_a_readable_node_error(server, tiny_checkpoint):
    broken = server.base / "models" / "dicetalk" / "broken"
    shutil.copytree(tiny_checkpoint, broken)
    unet = next((broken / "DICE-Talk").glob("unet.*"))
    unet.write_bytes(unet.read_bytes()[:1000])
    try:
        with pytest.raises(PromptError) as failed:
            server.run(quick_start(DiceTalkLoader={"checkpoint": "broken"}))
    finally:
        shutil.rmtree(broken)
    text = str(failed.value)
    assert text.startswith("DiceTalkLoader")
    assert unet.name in text
    assert len(text.strip().splitlines()) == 1
    assert server.get("/system_stats")


def test_portrait_without_a_face_is_a_readable_node_error(server, tmp_path):
    Image.new("RGB", (256, 256), "grey").save(tmp_path / "grey.png")
    name = server.upload(tmp_path / "grey.png")
    with pytest.raises(PromptError, match="DiceTalkPortrait: No face was found"):
        server.run(quick_start(LoadImage={"image": name}))


def test_guider_works_with_comfyuis_own_sampler_nodes(server):
    graph = quick_start()
    sampler = graph.pop("9")["inputs"]
    own = ("seed", "steps", "sampler_name", "scheduler")
    graph |= {
        "20": {"class_type": "DiceTalkGuider", "inputs": {k: v for k, v in sampler.items() if k not in own}},
        "21": {"class_type": "RandomNoise", "inputs": {"noise_seed": 0}},
        "22": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "dpmpp_2m"}},
        "23": {
            "class_type": "BasicScheduler",
            "inputs": {"model": ["5", 0], "scheduler": "sgm_uniform", "steps": 2, "denoise": 1.0},
        },
        "9": {
            "class_type": "SamplerCustomAdvanced",
            "inputs": {
                "noise": ["21", 0],
                "guider": ["20", 0],
                "sampler": ["22", 0],
                "sigmas": ["23", 0],
                "latent_image": ["20", 1],
            },
        },
    }
    outputs = server.run(graph)
    frames, _, _ = read_video(server.saved_file({"12": outputs["12"]}))
    assert len(frames) == 7
    assert any(np.any(frame != frames[0]) for frame in frames[1:])
