"""What is saved is shared: no video or image that the nodes write holds a folder of the machine or a user's name."""

import getpass
import json
import re
from pathlib import Path

import av
import pytest
from PIL import Image
from project import ROOT

GRAPH = json.loads((Path(__file__).parent / "graphs" / "quick_start.json").read_text())
ABSOLUTE = re.compile(r"/.+/.|[A-Za-z]:[\\/]|~[\\/]|\\\\")


def texts(path):
    """What a file says beside its pictures: name → text."""
    if path.suffix in (".png", ".webp", ".jpg"):
        with Image.open(path) as image:
            return {str(name): str(value) for name, value in image.info.items()}
    with av.open(str(path)) as container:
        return dict(container.metadata)


def strings(value):
    """Every text in a JSON value, keys too."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from strings(key)
            yield from strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from strings(part)
    elif isinstance(value, str):
        yield value


def private(path, names):
    """What a file holds that is a machine's or a person's own: texts that are absolute paths, and the given names."""
    found = []
    for text in texts(path).values():
        try:
            parts = list(strings(json.loads(text)))
        except ValueError:
            parts = [text]
        found += [part for part in parts if ABSOLUTE.match(part) or any(name in part for name in names)]
    return found


@pytest.fixture
def made(server):
    """The files of a run with every node that keeps a fingerprint, an emotion that is saved, and images of all."""
    save = {"emotion": ["8", 0], "name": "of a client", "overwrite": True}
    load = {"name": "of a client"}
    timeline = {"dicetalk": ["5", 1], "timeline": '0s neutral; 1s "of a client"', "easing": "as written"}
    clip = {"dicetalk": ["5", 1], "embedder": "evidence", "mode": "one emotion", "audio": ["2", 0], "fps": 0.0}
    server.run({key: GRAPH[key] for key in "58"} | {"30": {"class_type": "DiceTalkSaveEmotion", "inputs": save}})
    before = set(server.base.rglob("*"))
    graph = GRAPH | {
        "31": {"class_type": "DiceTalkLoadEmotion", "inputs": load},
        "32": {"class_type": "DiceTalkEmotionTimeline", "inputs": timeline},
        "33": {
            "class_type": "DiceTalkEmotionFromClip",
            "inputs": clip | {"face_model": "none", "voice_model": "none"},
        },
        "34": {"class_type": "DiceTalkSaveEmotion", "inputs": save | {"emotion": ["32", 0], "name": "other"}},
        "35": {"class_type": "SaveImage", "inputs": {"images": ["33", 1], "filename_prefix": "chart"}},
        "36": {"class_type": "DiceTalkVideo", "inputs": {"samples": ["9", 0], "vae": ["5", 3], "fps": 12.5}},
        "37": {"class_type": "SaveVideo", "inputs": GRAPH["12"]["inputs"] | {"video": ["36", 0]}},
    }
    graph["36"]["inputs"] |= {"chunk_size": 8, "context": 0}
    server.run(graph)
    kept = {".mp4", ".png", ".webp", ".jpg"}
    return [path for path in set(server.base.rglob("*")) - before if path.suffix in kept]


def test_no_saved_video_or_image_holds_a_path_or_a_users_name(server, made):
    assert {path.suffix for path in made} >= {".mp4", ".png"}
    with_graph = [path for path in made if any('"class_type"' in text for text in texts(path).values())]
    assert {path.suffix for path in with_graph} >= {".mp4", ".png"}
    kept = [text for path in with_graph for text in strings([json.loads(texts(path)["prompt"])])]
    assert any(re.fullmatch("[0-9a-f]{64}", text) for text in kept), "a fingerprint is among what is looked at"
    names = [str(place) for place in (server.base, server.base.name, ROOT, Path.home())]
    names += [f"pytest-of-{getpass.getuser()}", f"/{getpass.getuser()}/"]
    assert {path.name: found for path in made if (found := private(path, names))} == {}


def test_a_path_would_be_noticed(tmp_path):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("prompt", json.dumps({"5": {"is_changed": [[["/home/maria/models/unet.pth", 1]]]}}))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    assert private(tmp_path / "a.png", []) == ["/home/maria/models/unet.pth"]
    assert private(tmp_path / "a.png", ["maria"]) == ["/home/maria/models/unet.pth"]
