"""The workflows that come with the pack, on a real server with the tiny checkpoint.

What stands in for models that are too large for a test:
- SVD's VAE and CLIP vision tower: a small VAE, and a tower of the real size whose weights are random.
- Frame interpolation and upscaling models: narrow ones of RIFE's and Real-ESRGAN's kind with random weights.
- MediaPipe's face models: their real sizes with random weights. What they take for a face is none; the clip is short
  and silent.
- Stable Diffusion XL's picture: the example portrait, by Load Image.
"""

import copy
import json
import re
import subprocess
import sys
from urllib.parse import quote
from urllib.request import urlopen

import av
import numpy as np
import pytest
from comfy_files import write_face_landmarker, write_rife, write_upscaler
from make_workflows import WORKFLOWS as MADE
from PIL import Image
from project import ROOT
from workflow import NOTES, expanded, problems, to_graph

from dicetalk.drawn.files import wav
from dicetalk.media.audio import load_audio
from dicetalk.media.video import write_video
from dicetalk.model.audio import num_frames

WORKFLOWS = sorted((ROOT / "example_workflows").glob("*.json"))
SMALL = {
    "LoadVideo": {"file": "short.mp4"},
    "DiceTalkLoader": {"checkpoint": "tiny"},
    "DiceTalkPortrait": {"short_side": 64},
    "DiceTalkAudioFeatures": {"length": 0.4},
    "DiceTalkScript": {"script": "[happy] Hi [sad] you!"},
    "DiceTalkSampler": {"steps": 1},
    "DiceTalkReact": {"short_side": 128, "length": 0.4},
    "DiceTalkDialogue": {"short_side": 128, "steps": 1},
    "BasicScheduler": {"steps": 1},
}
MODEL_FILES = (".safetensors", ".sft", ".ckpt", ".pth", ".pt")  # that ComfyUI's page offers to download
THUMBNAIL_BYTES = 60_000
NEVER_UNNUMBERED = {"miniature", "emotion_follows_speech", "re_act", "dialogue"}
OLD_NAMES = {make.__name__: title for title, make in MADE.items() if make.__name__ not in NEVER_UNNUMBERED}
OWN = "0 Miniature"  # needs nothing that is not in the project's source
AS_SAMPLED = {"5 Back into the picture", "8 Generated portrait"}  # of 12.5 frames a second; the others have 25


@pytest.fixture(scope="module", params=WORKFLOWS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture(scope="module")
def workflow(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def stocked(server, comfy_nodes, tmp_path_factory):
    """The server with models under the names that the workflows have."""
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
    clip = tmp_path_factory.mktemp("clip") / "short.mp4"
    write_video(clip, frames[:2], 12.5)
    server.upload(clip)
    write_video(clip.with_name("talk.mp4"), frames, 12.5, np.full(6 * 1280, 0.1, np.float32), 16000)
    server.upload(clip.with_name("talk.mp4"))
    turns = clip.with_name("turns.wav")  # the second person's begins after 1.1 s
    turns.write_bytes(wav(load_audio(ROOT / "demo" / "speech.flac")[: round(1.4 * 16000)]))
    server.upload(turns)
    return server


def small(graph):
    """The graph with small models in the place of the published ones."""
    graph = copy.deepcopy(graph)
    for number, node in list(graph.items()):
        source = node["inputs"].get("samples", [None])[0]
        if node["class_type"] == "VAEDecode" and graph[source]["class_type"] == "KSampler":
            graph[number] = {"class_type": "LoadImage", "inputs": {"image": "dicetalk_portrait.jpg"}}
    own = any(node["inputs"].get("checkpoint") == "miniature" for node in graph.values())
    for node in graph.values():
        if not (own and node["class_type"] in ("DiceTalkLoader", "DiceTalkPortrait")):
            node["inputs"].update(SMALL.get(node["class_type"], {}))
    kinds = {node["class_type"]: node for node in graph.values()}
    if "DiceTalkReact" in kinds:
        kinds["LoadVideo"]["inputs"]["file"] = "talk.mp4"
    if "DiceTalkDialogue" in kinds:  # which takes all of its speech
        kinds["LoadAudio"]["inputs"]["audio"] = "turns.wav"
    return graph


def read_video(path):
    """(frames, height, width, 3) of 0..255, frame rate, and seconds of sound."""
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        seconds = float(audio.duration * audio.time_base)
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        return frames, video.average_rate, seconds


def test_every_workflow_is_there_and_made_by_the_script():
    assert {path.stem for path in WORKFLOWS} == set(MADE)


def test_every_link_widget_and_type_fits_the_nodes(server, path, workflow):
    object_info = server.get("/object_info")
    assert problems(workflow, object_info) == []
    make = MADE[path.stem]
    assert make(object_info).workflow(make.__name__)["links"] == workflow["links"], "run make_workflows.py again"


def test_a_wrong_workflow_would_be_noticed(server):
    workflow = json.loads((ROOT / "example_workflows" / "6 Long speech.json").read_text(encoding="utf-8"))
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
        "LoadImage (3)",
        "DiceTalkVideo.samples: its type",
        "DiceTalkEmotion.nothing",
        "DiceTalkEmotion.emotion: missing",
        "DiceTalkPortrait.image: nothing is wired",
        "DiceTalkSampler.steps: 0 is out",
        "DiceTalkAudioFeatures.widgets_values",
    ):
        assert any(part in problem for problem in found), (part, found)


def test_a_note_tells_the_models_and_the_page_can_offer_them(path, workflow):
    (note,) = [node["widgets_values"][0] for node in workflow["nodes"] if node["type"] in NOTES]
    assert note.startswith("# DICE-Talk: ")
    if path.stem != OWN:
        assert all(text in note for text in ("models/dicetalk/", "models/checkpoints/svd_xt", "non-commercial"))
    for node in expanded(workflow)["nodes"]:
        files = [value for value in node["widgets_values"] or () if str(value).endswith(MODEL_FILES)]
        offered = {each["name"]: each for each in node["properties"].get("models", ())}
        assert set(offered) == set(files), node["type"]
        for name, model in offered.items():
            assert model["url"].startswith("https://huggingface.co/") and model["url"].endswith(f"/{name}")
            assert f"models/{model['directory']}/{name}" in note


def test_comfyui_lists_it_with_its_thumbnail(path, server):
    picture = path.with_suffix(".jpg")
    assert picture.stat().st_size < THUMBNAIL_BYTES
    with Image.open(picture) as image:
        assert image.format == "JPEG" and image.width == image.height >= 400
    assert path.stem in server.get("/workflow_templates")["comfyui-dice-talk"]
    for file in (path, picture):
        with urlopen(f"{server.url}/api/workflow_templates/comfyui-dice-talk/{quote(file.name)}") as answer:
            assert answer.read() == file.read_bytes()


def test_it_runs(stocked, path, workflow):
    graph = small(to_graph(workflow, stocked.get("/object_info")))
    outputs = stocked.run(graph)
    kinds = {graph[number]["class_type"]: output for number, output in outputs.items()}
    frames, rate, seconds = read_video(stocked.saved_file({"": kinds["SaveVideo"]}))
    sizes = {"5 Back into the picture": 512, "8 Generated portrait": 128, "11 Re-act": 128, "12 Dialogue": 384}
    size = sizes.get(path.stem, 64)
    doubled, width = path.stem not in AS_SAMPLED, 2 * size if path.stem.startswith("12 ") else size
    count = 9 if path.stem.startswith("7 ") else 10 if doubled else 5  # ComfyUI's own node adds none after the last
    if path.stem.startswith("12 "):
        count = 2 * num_frames(round(1.4 * 16000))
    assert frames.shape == (count, size, width, 3) and rate == (25 if doubled else 12.5)
    assert abs(seconds - len(frames) / rate) <= 1 / rate and frames[1:].std(0).max() > 0
    for kind, output in kinds.items():
        if kind == "DiceTalkPortrait" or kind in ("DiceTalkEmotion", "DiceTalkEmotionMix", "DiceTalkEmotionTimeline"):
            assert Image.open(stocked.saved_file({"": {"images": output["images"]}})).width >= 256, kind
    if path.stem.startswith("5 "):
        with Image.open(ROOT / "demo" / "portrait.jpg") as photograph:
            difference = np.abs(frames.astype(int) - np.asarray(photograph)).mean(-1)
        assert difference[:, 256:].mean() < 8 and difference[:, 60:180, 180:270].mean() > 25


def test_the_miniature_talks_with_nothing_downloaded(server):
    graph = json.loads((ROOT / "api" / f"{OWN}.json").read_text(encoding="utf-8"))
    for node in graph.values():
        if node["class_type"] == "DiceTalkSampler":
            node["inputs"]["steps"] = 8
    outputs = server.run(graph)
    saved = {graph[number]["class_type"]: output for number, output in outputs.items()}["SaveVideo"]
    frames, rate, seconds = read_video(server.saved_file({"": saved}))
    assert frames.shape == (70, 64, 64, 3) and rate == 25 and abs(seconds - 2.8) < 0.05
    with Image.open(ROOT / "demo" / "drawn_portrait.png") as picture:
        portrait = np.asarray(picture.convert("RGB").resize((64, 64)), float)
    assert np.abs(frames - portrait).mean() < 25, "the person and the background are those of the portrait"
    mouth = frames[:, 36:52, 24:42].astype(float)
    assert mouth.std(0).mean() > 1.5 * frames[:, :12, :12].astype(float).std(0).mean(), "and the mouth moves"


def test_the_first_one_is_small():
    workflow = json.loads((ROOT / "example_workflows" / "1 Quick start.json").read_text(encoding="utf-8"))
    assert len(workflow["nodes"]) <= 5 and len(workflow["links"]) <= 5
    (blueprint,) = [
        node for node in workflow["nodes"] if node["title" if "title" in node else "type"].startswith("Talking")
    ]
    names = ["image", "audio", "emotion", "intensity", "seed", "size", "steps"]
    assert [entry["name"] for entry in blueprint["inputs"]] == names
    assert [output["type"] for output in blueprint["outputs"]] == ["VIDEO"]


def test_comfyui_lists_the_blueprint(server):
    entries = [each for each in server.get("/global_subgraphs").items() if "dice-talk" in each[1]["info"]["node_pack"]]
    ((number, entry),) = entries
    assert entry["name"] == "Talking Portrait (DICE-Talk)"
    told = json.loads(server.get(f"/global_subgraphs/{number}")["data"])
    first = json.loads((ROOT / "example_workflows" / "1 Quick start.json").read_text(encoding="utf-8"))
    assert told["definitions"] == first["definitions"], "the first workflow is built on it"
    alone = {f"{name}: nothing is wired to it" for name in ("DiceTalkPortrait.image", "DiceTalkAudioFeatures.audio")}
    assert set(problems(told, server.get("/object_info"))) == alone


def test_nodes_are_in_coloured_groups_and_words_are_drawn(workflow):
    assert workflow["extra"]["ds"]["scale"] >= 0.6 and workflow["extra"]["dicetalk_template"]
    groups = workflow["groups"]
    assert {group["title"] for group in groups} <= {"Models", "Who", "What", "How", "Result"}
    assert len({group["color"] for group in groups}) == len({group["title"] for group in groups}) >= 4
    for node in workflow["nodes"]:
        inside = [group["title"] for group in groups if is_inside(node, group["bounding"])]
        assert len(inside) == (node["type"] not in NOTES), (node["type"], inside)


def is_inside(node, bounding):
    (x, y), (width, height) = node["pos"], node["size"]
    left, top, wide, high = bounding
    return left <= x and top <= y - 30 and x + width <= left + wide and y + height <= top + high


def test_the_files_that_it_names_are_in_the_input_folder(server, workflow):
    names = [
        node["widgets_values"][0]
        for node in workflow["nodes"]
        if node["type"] in ("LoadImage", "LoadAudio", "LoadVideo")
    ]
    assert names
    for name in names:
        assert name.startswith("dicetalk_")
        assert (server.base / "input" / name).read_bytes() == (
            ROOT / "demo" / name.removeprefix("dicetalk_")
        ).read_bytes()


@pytest.mark.parametrize("old, new", sorted(OLD_NAMES.items()))
def test_a_workflow_is_found_under_its_old_name_too(server, old, new):
    with urlopen(f"{server.url}/api/workflow_templates/comfyui-dice-talk/{old}.json") as answer:
        assert json.load(answer)["id"] == json.loads((ROOT / "example_workflows" / f"{new}.json").read_text())["id"]


def test_the_file_for_services_is_the_same_graph(server, path, workflow):
    api = json.loads((ROOT / "api" / path.name).read_text(encoding="utf-8"))
    assert api == to_graph(workflow, server.get("/object_info")), "run make_workflows.py again"


def test_the_program_in_the_documents_makes_a_video(stocked, tmp_path):
    text = (ROOT / "docs" / "headless.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    graph = json.loads((ROOT / "api" / "1 Quick start.json").read_text(encoding="utf-8"))
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "1 Quick start.json").write_text(json.dumps(small(graph)))
    program = program.replace("http://127.0.0.1:8188", stocked.url)
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    with urlopen(ran.stdout.strip()) as answer:
        (tmp_path / "out.mp4").write_bytes(answer.read())
    frames, rate, _ = read_video(tmp_path / "out.mp4")
    assert rate == 25 and len(frames) >= 9
