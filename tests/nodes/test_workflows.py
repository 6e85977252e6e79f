"""The workflows that come with the pack, on a real server with the tiny checkpoint.

What stands in for models that are too large for a test:
- SVD's VAE and CLIP vision tower: a small VAE, and a tower of the real size whose weights are random.
- Frame interpolation and upscaling models: narrow ones of RIFE's and Real-ESRGAN's kind with random weights.
- MediaPipe's face models: their real sizes with random weights. What they take for a face is
  none; the clip is silent, so that the face alone is read.
- Stable Diffusion XL's picture: the example portrait, by Load Image.
"""

import copy
import json
from urllib.request import urlopen

import av
import numpy as np
import pytest
from comfy_files import write_face_landmarker, write_rife, write_upscaler
from make_workflows import WORKFLOWS as MADE
from PIL import Image
from project import ROOT
from workflow import NOTES, problems, to_graph

from dicetalk.media.video import write_video

WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
SMALL = {
    "DiceTalkLoader": {"checkpoint": "tiny"},
    "DiceTalkPortrait": {"short_side": 128},
    "DiceTalkAudioFeatures": {"length": 0.4},
    "DiceTalkSampler": {"steps": 1},
    "BasicScheduler": {"steps": 1},
    "VAELoader": {"vae_name": "small_vae.safetensors"},
    "CLIPVisionLoader": {"clip_name": "clip_vision_h.safetensors"},
    "LoadImage": {"image": "portrait.jpg"},
}
MODEL_FILES = (".safetensors", ".sft", ".ckpt", ".pth", ".pt")  # that ComfyUI's page offers to download
THUMBNAIL_BYTES = 60_000
DOUBLED = {"frames_25_fps", "long_audio"}


@pytest.fixture(scope="module", params=WORKFLOWS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture(scope="module")
def workflow(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def stocked(server, comfy_nodes, tmp_path_factory):
    """The server with models and a clip under the names that the workflows have."""
    models = server.base / "models"
    for folder, name, write in (
        ("frame_interpolation", "film_net_fp16.safetensors", write_rife),
        ("upscale_models", "RealESRGAN_x4plus.safetensors", write_upscaler),
        ("detection", "mediapipe_face_fp32.safetensors", write_face_landmarker),
    ):
        (models / folder).mkdir(exist_ok=True)
        write(models / folder / name)
    with Image.open(ROOT / "demo" / "portrait.jpg") as picture:
        frames = 6 * [np.asarray(picture.resize((128, 128)), np.float32) / 255]
    clip = tmp_path_factory.mktemp("clip") / "reference.mp4"
    write_video(clip, frames, 12.5)
    server.upload(clip)
    return server


def small(graph):
    """The graph with small models in the place of the published ones."""
    graph = copy.deepcopy(graph)
    for number, node in list(graph.items()):
        source = node["inputs"].get("samples", [None])[0]
        if node["class_type"] == "ImageOnlyCheckpointLoader":
            graph[number] = {"class_type": "CLIPVisionLoader", "inputs": {}}
            graph["vae"] = {"class_type": "VAELoader", "inputs": {}}
            rewire(graph, [number, 1], [number, 0])
            rewire(graph, [number, 2], ["vae", 0])
        elif node["class_type"] == "VAEDecode" and graph[source]["class_type"] == "KSampler":
            graph[number] = {"class_type": "LoadImage", "inputs": {}}
    for node in graph.values():
        node["inputs"].update(SMALL.get(node["class_type"], {}))
    return graph


def rewire(graph, old, new):
    for node in graph.values():
        node["inputs"] = {name: new if value == old else value for name, value in node["inputs"].items()}


def read_video(path):
    """(frames, height, width, 3) of 0..255, frame rate, and seconds of sound."""
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        seconds = float(audio.duration * audio.time_base)
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        return frames, video.average_rate, seconds


def test_every_workflow_is_there_and_made_by_the_script():
    assert {path.stem for path in WORKFLOWS} == {make.__name__ for make in MADE}


def test_every_link_widget_and_type_fits_the_nodes(server, path, workflow):
    object_info = server.get("/object_info")
    assert problems(workflow, object_info) == []
    make = next(make for make in MADE if make.__name__ == path.stem)
    assert make(object_info).workflow(path.stem)["links"] == workflow["links"], "run make_workflows.py again"


def test_a_wrong_workflow_would_be_noticed(server):
    workflow = json.loads((ROOT / "workflows" / "quick_start.json").read_text(encoding="utf-8"))
    notes = [node for node in workflow["nodes"] if node["type"] in NOTES]
    wrong = {node["type"]: node for node in workflow["nodes"]}
    wrong["LoadImage"]["pos"] = notes[0]["pos"]
    wrong["DiceTalkVideo"]["inputs"][0]["type"] = "AUDIO"
    wrong["DiceTalkEmotion"]["inputs"][1]["name"] = "nothing"
    wrong["DiceTalkPortrait"]["inputs"][0]["link"] = None
    wrong["DiceTalkSampler"]["widgets_values"][4] = 0
    wrong["DiceTalkAudioFeatures"]["widgets_values"].append(1)
    found = problems(workflow, server.get("/object_info"))
    for part in (
        "LoadImage (4)",
        "DiceTalkVideo.samples: its type",
        "DiceTalkEmotion.nothing",
        "DiceTalkEmotion.emotion: missing",
        "DiceTalkPortrait.image: nothing is wired",
        "DiceTalkSampler.steps: 0 is out",
        "DiceTalkAudioFeatures.widgets_values",
    ):
        assert any(part in problem for problem in found), (part, found)


def test_a_note_tells_the_models_and_the_page_can_offer_them(workflow):
    (note,) = [node["widgets_values"][0] for node in workflow["nodes"] if node["type"] in NOTES]
    assert note.startswith("# DICE-Talk: ") and "models/dicetalk/" in note and "non-commercial" in note
    needed = 0
    for node in workflow["nodes"]:
        files = [value for value in node["widgets_values"] or () if str(value).endswith(MODEL_FILES)]
        offered = {each["name"]: each for each in node["properties"].get("models", ())}
        assert set(offered) == set(files), node["type"]
        for name, model in offered.items():
            assert model["url"].startswith("https://huggingface.co/") and model["url"].endswith(f"/{name}")
            assert f"models/{model['directory']}/{name}" in note
            needed += 1
    assert needed


def test_comfyui_lists_it_with_its_thumbnail(path, server):
    picture = path.with_suffix(".jpg")
    assert picture.stat().st_size < THUMBNAIL_BYTES
    with Image.open(picture) as image:
        assert image.format == "JPEG" and image.width == image.height >= 400
    assert path.stem in server.get("/workflow_templates")["comfyui-dice-talk"]
    for file in (path, picture):
        with urlopen(f"{server.url}/api/workflow_templates/comfyui-dice-talk/{file.name}") as answer:
            assert answer.read() == file.read_bytes()


def test_it_runs(stocked, path, workflow):
    graph = small(to_graph(workflow, stocked.get("/object_info")))
    outputs = stocked.run(graph)
    kinds = {graph[number]["class_type"]: output for number, output in outputs.items()}
    frames, rate, seconds = read_video(stocked.saved_file({"": kinds["SaveVideo"]}))
    size, doubled = {"paste_back": 512, "generated_portrait": 256}.get(path.stem, 128), path.stem in DOUBLED
    assert frames.shape == (9 if doubled else 5, size, size, 3) and rate == (25 if doubled else 12.5)
    assert abs(seconds - len(frames) / rate) <= 1 / rate and frames[1:].std(0).max() > 0
    for kind, output in kinds.items():
        if kind == "DiceTalkPortrait" or kind in ("DiceTalkEmotion", "DiceTalkEmotionMix", "DiceTalkEmotionTimeline"):
            assert Image.open(stocked.saved_file({"": {"images": output["images"]}})).width >= 256, kind
    if path.stem == "paste_back":
        with Image.open(ROOT / "demo" / "portrait.jpg") as photograph:
            difference = np.abs(frames.astype(int) - np.asarray(photograph)).mean(-1)
        assert difference[:, 256:].mean() < 8 and difference[:, 60:180, 180:270].mean() > 25
