"""DICE-Talk Job List, and lists of portraits and sounds: many clips from one queued prompt on a real server."""

import copy
import importlib
import json
import re
import shutil

import numpy as np
import pytest
import torch
from comfy_server import PromptError
from PIL import Image
from project import DEMO, GRAPHS
from safetensors.numpy import load_file

QUICK_START = json.loads((GRAPHS / "quick_start.json").read_text())
HEAD = "portrait,audio,output,emotion,seed,steps,size,start,length,face,fps,video,script"
ROWS = [
    "portrait.jpg,speech.flac,one.mp4,happy,1,1,64,0.5,0.3,,",
    "portrait.jpg,nowhere.flac,two.mp4,happy,1,1,64,0.5,0.3,,",
    'portrait.jpg,speech.flac,there/three.mp4,"0s sad; 0.2s happy:1.2",2,2,64,0.2,0.2,"180,60,320,250",12.5',
    "portrait.jpg,speech.flac,four.mp4,clip:speech.flac,,,,,,,",
    "portrait.jpg,speech.flac,five.mp4,happy,,,,,,left,",
    "portrait.jpg,speech.flac,six.mp4,hapy,,,,,,,",
    "portrait.jpg,../outside.flac,seven.mp4,happy,,,,,,,",
    "https://example.com/a.jpg,speech.flac,eight.mp4,happy,,,,,,,",
    ",,nine.mp4,happy,,,,,,,,talk.mp4",
    "portrait.jpg,speech.flac,ten.mp4,happy,,,,,,,,,[happy] Hello.",
]


def graph(**changes):
    """The quick-start graph with DICE-Talk Video; changes are given as node class → inputs."""
    made = copy.deepcopy(QUICK_START)
    made["6"]["inputs"] |= {"short_side": 64}
    made["9"]["inputs"] |= {"steps": 1}
    video = {"samples": ["9", 0], "vae": ["5", 3], "fps": 12.5, "audio": ["7", 3], "chunk_size": 8, "context": 0}
    made["11"] = {"class_type": "DiceTalkVideo", "inputs": video}
    del made["10"]
    for node in made.values():
        node["inputs"] |= changes.get(node["class_type"], {})
    return made


def listed(table, **settings):
    """The graph with what DICE-Talk Job List gives wired to all that takes it."""
    made = graph()
    inputs = {"dicetalk": ["5", 1], "table": table, "first_row": 1, "rows": 0, "bad_rows": "leave out"}
    made["20"] = {"class_type": "DiceTalkJobList", "inputs": inputs | settings}
    names = "image audio emotion filename_prefix seed steps short_side crop margin bboxes reference_scale"
    names = [*names.split(), "emotion_scale", "speech_strength", "emotion_strength"]
    place = {name: ["20", number] for number, name in enumerate(names)}
    made["6"]["inputs"] |= {name: place[name] for name in ("image", "short_side", "crop", "margin", "bboxes")}
    made["7"]["inputs"] |= {"audio": place["audio"], "start": 0.0, "length": 0.0}
    strengths = ("reference_scale", "emotion_scale", "speech_strength", "emotion_strength")
    made["9"]["inputs"] |= {name: place[name] for name in ("emotion", "seed", "steps", *strengths)}
    made["12"]["inputs"]["filename_prefix"] = place["filename_prefix"]
    for number in "128":  # the one portrait, sound and emotion
        del made[number]
    return made


@pytest.fixture
def table(server):
    path = server.base / "input" / "jobs.csv"
    path.write_text("\n".join([HEAD, *ROWS]), encoding="utf-8")
    shutil.copy(DEMO / "speech.flac", server.base / "outside.flac")
    yield path
    path.unlink()


def run(server, made):
    """What the nodes showed, what the log got, the paths of the videos by name, and the sampled latents, in order."""
    # A name of their own: ComfyUI counts latents and videos of one name together.
    save = {"class_type": "SaveLatent", "inputs": {"samples": ["9", 0], "filename_prefix": "kept"}}
    before = len(server.log_text())
    outputs = server.run(made | {"40": save})

    def paths(items):
        return {item["filename"]: server.base / item["type"] / item["subfolder"] / item["filename"] for item in items}

    latents = [load_file(path)["latent_tensor"] for path in paths(outputs["40"]["latents"]).values()]
    return outputs, server.log_text()[before:], paths(outputs["12"]["images"]), latents


def test_the_rows_of_a_table_run_one_after_another_and_each_is_saved_under_its_name(server, table):
    outputs, log, saved, latents = run(server, listed("jobs.csv"))
    assert sorted(saved) == ["one_00001_.mp4", "three_00001_.mp4"]
    assert saved["three_00001_.mp4"].parent.name == "there"
    report = outputs["20"]["text"][0]
    assert report.startswith("2 of 10 rows are used.\nrow 1: one\nleft out: row 2: ")
    for row, words in (
        (2, "nowhere.flac does not exist"),
        (4, "DICE-Talk Emotion From Clip"),
        (5, "face is left: give a box"),
        (6, "did you mean happy"),
        (7, "outside.flac is outside ComfyUI's input folder"),
        (8, "https://example.com/a.jpg is outside ComfyUI's input folder"),
        (9, "video is given, which this node does not read"),
        (10, "script is given: DICE-Talk Script"),
    ):
        assert re.search(rf"^left out: row {row}: .*{words}", report, re.M), (row, report)
    assert "row 3: there/three (set in other nodes: fps)" in report
    for text in ("clip 1 of 2: step 1 of 1", "clip 2 of 2: step 2 of 2", "clip 2 of 2: decoding and writing"):
        assert f"DICE-Talk: {text}" in log, text
    assert log.count("Requested to load DiceTalkModel") <= 1

    # The same as with one node for each setting.
    alone = graph(
        DiceTalkPortrait={"bboxes": {"x": 180, "y": 60, "width": 140, "height": 190}},
        DiceTalkAudioFeatures={"start": 0.2, "length": 0.2},
        DiceTalkSampler={"seed": 2, "steps": 2, "emotion": ["8", 0]},
        SaveVideo={"filename_prefix": "alone"},
    )
    timeline = {"dicetalk": ["5", 1], "timeline": "0s sad; 0.2s happy:1.2", "easing": "as written"}
    alone["8"] = {"class_type": "DiceTalkEmotionTimeline", "inputs": timeline}
    _, log, _, (single,) = run(server, alone)
    assert "clip " not in log
    # ComfyUI computes as many branches at once as memory has room for, which changes rounding.
    assert np.abs(latents[1] - single).max() < 1e-3 * np.abs(single).max() < np.abs(latents[0][:3] - single).max()


def test_bad_rows_can_stop_it(server, table):
    with pytest.raises(PromptError, match=r"8 of 10 rows of jobs.csv cannot be used: row 2: .*; and 5 more"):
        server.run(listed("jobs.csv", bad_rows="stop"))
    with pytest.raises(PromptError, match=r"1 of 1 rows of jobs.csv cannot be used: .*Correct them\."):
        server.run(listed("jobs.csv", first_row=2, rows=1))
    with pytest.raises(PromptError, match="first_row is 11, and jobs.csv has 10 rows"):
        server.run(listed("jobs.csv", first_row=11))
    with pytest.raises(PromptError, match="There is no table 'other.csv' in ComfyUI's input folder"):
        server.run(listed("other.csv"))


def test_a_list_of_portraits_and_one_of_sounds(server, table, tmp_path):
    """Two pictures by ComfyUI's own nodes, and the sounds of two rows: two clips, of which each has its own."""
    with Image.open(DEMO / "portrait.jpg") as picture:
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "mirrored.png")
    server.upload(tmp_path / "mirrored.png")
    made = graph(SaveVideo={"filename_prefix": "pair"}, DiceTalkAudioFeatures={"start": 0.0, "length": 0.0})
    made["30"] = {"class_type": "LoadImage", "inputs": {"image": "mirrored.png"}}
    made["31"] = {"class_type": "ImageBatch", "inputs": {"image1": ["1", 0], "image2": ["30", 0]}}
    made["32"] = {"class_type": "RebatchImages", "inputs": {"images": ["31", 0], "batch_size": 1}}
    made["6"]["inputs"]["image"] = ["32", 0]
    made["20"] = listed("jobs.csv")["20"]
    made["7"]["inputs"]["audio"] = ["20", 1]
    _, log, saved, latents = run(server, made)
    assert sorted(saved) == ["pair_00001_.mp4", "pair_00002_.mp4"]
    assert list(map(len, latents)) == [4, 3]  # the sounds last 0.3 s and 0.2 s
    assert "clip 2 of 2: step" in log
    assert np.abs(latents[0][:3] - latents[1]).max() > 0.01 * np.abs(latents[0]).max()


def test_an_error_says_which_clip_it_was(server, table):
    made = listed("jobs.csv")
    made["9"]["inputs"]["guidance_to"] = 1.0
    made["9"]["inputs"]["guidance_from"] = 0.5
    with pytest.raises(PromptError, match="clip 1 of 2: guidance_to is 1, above guidance_from"):
        server.run(made)


@pytest.fixture
def node(pack, tmp_path, monkeypatch):
    """The node's module, with an input folder of its own."""
    module = importlib.import_module(f"{pack.__name__}.nodes.job_list")
    monkeypatch.setattr(module.folder_paths, "get_input_directory", lambda: str(tmp_path))
    monkeypatch.setitem(module.folder_paths.folder_names_and_paths, "dicetalk_emotions", ([str(tmp_path)], {".pt"}))
    return module


def test_tables_are_those_of_the_input_folder_and_its_folders(node, tmp_path):
    for name in ("b.csv", "a.JSONL", "film/c.parquet", "film/scene/d.csv", "e.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert list(node.tables()) == ["a.JSONL", "b.csv", "film/c.parquet"]


def test_it_runs_again_when_the_table_or_a_file_changes(node, tmp_path):
    table = tmp_path / "a.csv"
    table.write_text("portrait,audio\na.png,b.wav\n")
    seen = [node.DiceTalkJobList.fingerprint_inputs("a.csv")]
    (tmp_path / "a.png").write_bytes(b"1")
    seen.append(node.DiceTalkJobList.fingerprint_inputs("a.csv"))
    assert seen[1] == node.DiceTalkJobList.fingerprint_inputs("a.csv")
    table.write_text("portrait,audio\na.png,c.wav\n")
    seen.append(node.DiceTalkJobList.fingerprint_inputs("a.csv"))
    assert len(set(seen)) == 3 and not any("/" in each for each in seen)


def test_outputs_elsewhere_are_saved_below_comfyuis_folder(node, tmp_path):
    assert node._prefix(str(tmp_path / "a" / "b.mp4"), tmp_path) == "a/b"
    assert node._prefix(str(tmp_path.parent / "b.mp4"), tmp_path) == "b"


def test_pictures_are_load_images_and_what_that_node_cannot_give_is_read_all_the_same(node, comfy_nodes, tmp_path):
    folder = tmp_path.parent / f"{tmp_path.name}_elsewhere"
    folder.mkdir()
    shutil.copy(DEMO / "portrait.jpg", tmp_path)
    shutil.copy(DEMO / "portrait.jpg", folder)
    (tmp_path / "linked").symlink_to(folder, target_is_directory=True)
    shown = comfy_nodes.LoadImage().load_image("portrait.jpg")[0]
    assert torch.equal(node._image(str(tmp_path / "portrait.jpg")), shown)
    linked = node._image(str(tmp_path / "linked" / "portrait.jpg"))
    assert 0 < (linked - shown).abs().max() < 4 / 255  # the other decoder's

    red, blue = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))
    red.save(tmp_path / "moving.gif", save_all=True, append_images=[blue])
    moving = node._image(str(tmp_path / "moving.gif"))
    assert moving.shape == (1, 64, 64, 3) and moving[..., 0].min() == 1 and moving[..., 2].max() == 0
    with pytest.raises(node.InputError, match="broken.png is not an image"):
        (tmp_path / "broken.png").write_bytes(b"no picture")
        node._image(str(tmp_path / "broken.png"))


def test_pictures_that_memory_cannot_hold_are_a_bad_row(node, monkeypatch):
    monkeypatch.setattr(node.comfy.model_management, "get_free_memory", lambda device: 1e5)
    words = r"portrait.jpg does not fit into the free memory .*set rows to fewer"
    with pytest.raises(node.InputError, match=words):
        node._image(str(DEMO / "portrait.jpg"))
