"""The workflows that come with the pack, on a real server with the tiny checkpoint."""

import copy
import json
from pathlib import Path

import pytest
from workflow import problems, to_graph

WORKFLOWS = sorted((Path(__file__).parents[2] / "workflows").glob("*.json"))
SMALL = {
    "DiceTalkLoader": {"checkpoint": "tiny"},
    "DiceTalkPortrait": {"short_side": 128},
    "DiceTalkAudioFeatures": {"length": 0.4},
    "DiceTalkSampler": {"steps": 1},
}


@pytest.fixture(scope="module", params=WORKFLOWS, ids=lambda path: path.stem)
def workflow(request):
    return json.loads(request.param.read_text(encoding="utf-8"))


def small(graph):
    """The graph with the server's small models in the place of the published ones."""
    graph = copy.deepcopy(graph)
    for number, node in list(graph.items()):
        node["inputs"].update(SMALL.get(node["class_type"], {}))
        if node["class_type"] == "ImageOnlyCheckpointLoader":
            graph[number] = {"class_type": "CLIPVisionLoader", "inputs": {"clip_name": "clip_vision_h.safetensors"}}
            graph["vae"] = {"class_type": "VAELoader", "inputs": {"vae_name": "small_vae.safetensors"}}
            for other in graph.values():
                for name, value in other["inputs"].items():
                    if value == [number, 1]:
                        other["inputs"][name] = [number, 0]
                    elif value == [number, 2]:
                        other["inputs"][name] = ["vae", 0]
    return graph


def test_there_are_workflows():
    assert "quick_start" in [path.stem for path in WORKFLOWS]


def test_every_link_widget_and_type_fits_the_nodes(server, workflow):
    assert problems(workflow, server.get("/object_info")) == []


def test_a_wrong_workflow_would_be_noticed(server):
    workflow = json.loads(WORKFLOWS[0].read_text(encoding="utf-8"))
    workflow["nodes"][1]["pos"] = workflow["nodes"][0]["pos"]
    workflow["links"][0][5] = "AUDIO_"
    workflow["nodes"][2]["inputs"][0]["name"] = "nothing"
    assert len(problems(workflow, server.get("/object_info"))) >= 4


def test_it_runs(server, workflow):
    graph = small(to_graph(workflow, server.get("/object_info")))
    outputs = server.run(graph)
    saved = [output for number, output in outputs.items() if graph[number]["class_type"].startswith("Save")]
    assert saved and server.saved_file({"0": saved[0]}).stat().st_size > 0
