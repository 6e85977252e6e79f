"""Makes example_workflows/*.jpg, under which ComfyUI lists the workflows: the miniature's frames above the graph.

    COMFYUI_PATH=... python tests/tools/make_thumbnails.py [NUMBER ...]

Each graph runs on a real ComfyUI server, as it is but for what the miniature needs: drawn people in the place of the
photograph, 64 pixels, and the pack's own nodes in the place of models that do not come with it.
"""

import copy
import json
import math
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import _paths  # noqa: F401
import numpy as np
from comfy_server import ComfyServer
from PIL import Image, ImageDraw, ImageFont
from project import ROOT
from workflow import NOTES

from dicetalk import cli
from dicetalk.drawn import Person, Take
from dicetalk.drawn.files import write_take
from dicetalk.emotion.drawing import COLOURS
from dicetalk.measure.scenes import frames_of
from dicetalk.reading.streams import look_into

SIDE, FINE = 512, 2  # drawn twice as large, then made smaller
GAP, CAPTION, RESULT = 8, 24, 330  # the frames and their captions take so much of the height at most
BACK, LINE, TEXT, NODE = (24, 26, 31), (120, 128, 140), (235, 237, 240), (56, 60, 68)
QUALITY = 85
SECONDS = 1800  # for a graph at most
CLIP, VIDEO = "drawn_clip.mp4", "drawn_video.mp4"  # in ComfyUI's input folder
SMALL = {
    "DiceTalkLoader": {"checkpoint": "miniature"},
    "DiceTalkPortrait": {"short_side": 64},
    "DiceTalkReact": {"short_side": 64},
    "DiceTalkDialogue": {"short_side": 64},
    "LoadImage": {"image": "dicetalk_drawn_portrait.png"},
    "LoadAudio": {"audio": "dicetalk_drawn_speech.flac"},
    "LoadVideo": {"file": VIDEO},
    "DiceTalkScript": {"script": "[happy] She put the paper [surprised] back on [sad] the table."},
}
# What is shown above the graph: rows of (seconds in the result, caption); the caption "before" is the video that was
# given, "clip" the one whose emotion is read.
SHOWN = {
    "0 Miniature": [[(0.4, "happy"), (1.0, "happy"), (1.6, "happy")]],
    "1 Quick start": [[(0.4, "happy"), (1.0, "happy"), (1.6, "happy")]],
    "2 Mixed emotion": [[(seconds, "surprised 0.4 + happy 0.6") for seconds in (0.5, 1.5)]],
    "3 Emotion timeline": [[(0.4, "neutral"), (1.7, "happy"), (2.5, "surprised + happy")]],
    "4 Emotion from a clip": [[(1.0, "clip"), (1.0, "as the clip"), (1.6, "as the clip")]],
    "5 Back into the picture": [[(0.8, "happy, in the whole picture")], [(1.6, "happy, in the whole picture")]],
    "6 Long speech": [[(0.35 * n, f"{0.35 * n:.2f} s") for n in row] for row in (range(4), range(4, 8))],
    "7 Frame interpolation": [[(1 + n / 25, "new" if n % 2 else "") for n in row] for row in (range(4), range(4, 8))],
    "8 Generated portrait": [[(0.8, "happy"), (1.6, "happy")]],
    "9 Custom sampling": [[(0.4, "happy"), (1.0, "happy"), (1.6, "happy")]],
    "10 Emotion follows the speech": [[(0.5, "happy"), (1.4, "surprised"), (2.3, "sad")]],
    "11 Re-act": [
        [(seconds, "before") for seconds in (0.4, 1.0, 1.6)],
        [(seconds, "sad") for seconds in (0.4, 1.0, 1.6)],
    ],
    "12 Dialogue": [[(0.8, "happy, and neutral")], [(1.8, "happy, and neutral")]],
}


def for_the_miniature(title, graph):
    """The graph with what the miniature knows in it."""
    graph = copy.deepcopy(graph)
    kinds = {node["class_type"]: number for number, node in graph.items()}

    def rewire(kind, output, node, name):
        graph[kinds[node]]["inputs"][name] = [kinds[kind], output]

    if title.startswith("4 "):  # MediaPipe's landmarks are not at hand: the drawn clip's own were read before
        graph[kinds["DiceTalkEmotionFromClip"]] = {"class_type": "DiceTalkLoadEmotion", "inputs": {"name": "clip"}}
        del graph[kinds["LoadVideo"]], graph[kinds["LoadMediaPipeFaceLandmarker"]]
    if title.startswith("6 "):
        del graph[kinds["DiceTalkVideo"]]["inputs"]["interp_model"], graph[kinds["FrameInterpolationModelLoader"]]
    if title.startswith("7 "):
        samples, vae = (graph[kinds["VAEDecode"]]["inputs"][name] for name in ("samples", "vae"))
        audio = graph[kinds["CreateVideo"]]["inputs"]["audio"]
        own = {"samples": samples, "vae": vae, "audio": audio, "fps": 12.5, "smooth_motion": True}
        graph[kinds["CreateVideo"]] = {"class_type": "DiceTalkVideo", "inputs": own | {"chunk_size": 64, "context": 4}}
        for kind in ("VAEDecode", "FrameInterpolationModelLoader", "FrameInterpolate"):
            del graph[kinds[kind]]
    if title.startswith("8 "):
        portrait = graph[kinds["DiceTalkPortrait"]]["inputs"]["image"][0]
        graph[portrait] = {"class_type": "LoadImage", "inputs": {}}
        graph[kinds["ImageScaleBy"]]["inputs"] |= {"image": graph[kinds["ImageUpscaleWithModel"]]["inputs"]["image"]}
        graph[kinds["ImageScaleBy"]]["inputs"]["scale_by"] = 2.0
        generated = ("CheckpointLoaderSimple", "CLIPTextEncode", "EmptyLatentImage", "KSampler")
        for kind in (*generated, "UpscaleModelLoader", "ImageUpscaleWithModel"):
            for number in [number for number, node in graph.items() if node["class_type"] == kind]:
                del graph[number]
    for node in graph.values():
        node["inputs"].update(SMALL.get(node["class_type"], {}))
    if title.startswith(("5 ", "12 ")):
        graph[kinds["LoadImage"]]["inputs"]["image"] = "dicetalk_two.jpg"
    return graph


def thumbnail(title, frames, fps):
    """The finished picture.

    Args:
        frames: (n, height, width, 3) uint8 of the result, `fps` a second; by "made", and by "before" and "clip" those
            of the given videos.
        fps: of each.
    """
    image = Image.new("RGB", (FINE * SIDE, FINE * SIDE), BACK)
    draw, top, rows = ImageDraw.Draw(image), GAP, SHOWN[title]
    for row in rows:
        pictures = [picture_at(frames, fps, *each) for each in row]
        shape = max(picture.width / picture.height for picture in pictures)
        height = int(min((SIDE - GAP) / len(row) / shape - GAP, RESULT / len(rows) - CAPTION))
        width = int(height * shape)
        left = (SIDE - len(row) * (width + GAP) + GAP) // 2
        for picture, (_, caption) in zip(pictures, row, strict=True):
            picture = picture.resize((FINE * width, FINE * height), Image.Resampling.BICUBIC)
            image.paste(picture, (FINE * left, FINE * top))
            _text(draw, left + width / 2, top + height + CAPTION / 2, caption, 16, COLOURS.get(caption, TEXT))
            left += width + GAP
        top += height + CAPTION
    draw_graph(image, title, (GAP, top + GAP, SIDE - GAP, SIDE - CAPTION))
    _text(draw, SIDE / 2, SIDE - CAPTION / 2, "drawn people, made by the miniature", 13, LINE)
    return image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def picture_at(frames, fps, seconds, caption):
    source = caption if caption in frames else "made"
    return Image.fromarray(frames[source][min(round(seconds * fps[source]), len(frames[source]) - 1)])


def draw_graph(image, title, box):
    """The workflow as ComfyUI's page lays it out, without its note, in a box of the picture."""
    workflow = json.loads((ROOT / "example_workflows" / f"{title}.json").read_text(encoding="utf-8"))
    nodes = {node["id"]: node for node in workflow["nodes"] if node["type"] not in NOTES}
    bounds = [group["bounding"] for group in workflow["groups"]]
    left, top = min(each[0] for each in bounds), min(each[1] for each in bounds)
    wide, high = max(each[0] + each[2] for each in bounds) - left, max(each[1] + each[3] for each in bounds) - top
    scale = min((box[2] - box[0]) / wide, (box[3] - box[1]) / high)
    x0, y0 = ((box[0] + box[2] - scale * wide) / 2 - scale * left, (box[1] + box[3] - scale * high) / 2 - scale * top)
    draw = ImageDraw.Draw(image)

    def scaled(x, y):
        return FINE * (x0 + scale * x), FINE * (y0 + scale * y)

    for group in workflow["groups"]:
        (x, y), (width, height) = group["bounding"][:2], group["bounding"][2:]
        colour = tuple(int(group["color"][at : at + 2], 16) for at in (1, 3, 5))
        faint = tuple((part + 2 * back) // 3 for part, back in zip(colour, BACK))
        draw.rounded_rectangle((*scaled(x, y), *scaled(x + width, y + height)), 4 * FINE, faint, colour, FINE)
    for _, source, slot, target, place, _ in workflow["links"]:
        if source in nodes and target in nodes:
            (ax, ay), (aw, _), (bx, by) = nodes[source]["pos"], nodes[source]["size"], nodes[target]["pos"]
            begin, end = (ax + aw, ay + 14 + 20 * slot), (bx, by + 14 + 20 * place)
            draw.line([scaled(*point) for point in curve(begin, end)], LINE, FINE, joint="curve")
    for node in nodes.values():
        (x, y), (width, height) = node["pos"], node["size"]
        draw.rounded_rectangle((*scaled(x, y - 30), *scaled(x + width, y + height)), 3 * FINE, NODE)
        name = node.get("title") or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", node["type"].removeprefix("DiceTalk"))
        name = name.removesuffix(" (DICE-Talk)")
        font = ImageFont.load_default(FINE * 10)
        if draw.textlength(name, font) < FINE * scale * width - 4:
            draw.text(scaled(x + width / 2, y - 15 + 6 / scale), name, TEXT, font, "mm")


def curve(begin, end, points=24):
    """A wire as the page draws it, from an output to an input."""
    reach = 0.25 * math.dist(begin, end)
    ends = np.array([begin, (begin[0] + reach, begin[1]), (end[0] - reach, end[1]), end])
    along = np.linspace(0, 1, points)[:, None]
    weights = np.hstack([(1 - along) ** 3, 3 * along * (1 - along) ** 2, 3 * along**2 * (1 - along), along**3])
    return weights @ ends


def _text(draw, x, y, text, size, fill):
    draw.text((FINE * x, FINE * y), text, fill, ImageFont.load_default(FINE * size), "mm")


def give_videos(server, folder):
    """Upload a drawn video, and save the emotion that another one's landmarks show. Returns the frames of both."""
    for name, take in ((VIDEO, Take(Person.of(7), "neutral", None, 3, 3)), (CLIP, Take(Person.of(11), "surprised"))):
        write_take(take, folder / name, 256)
    server.upload(folder / VIDEO)
    saved = server.base / "models" / "dicetalk_emotions" / "clip.safetensors"
    saved.parent.mkdir(parents=True, exist_ok=True)
    read = ["emotion", "from-clip", str(folder / CLIP), "--landmarks", str((folder / CLIP).with_suffix(".csv"))]
    if cli.main([*read, "--timeline", "--checkpoint", str(ROOT / "miniature"), "--output", str(saved)]):
        raise SystemExit(1)
    return {"before": frames_of(folder / VIDEO), "clip": frames_of(folder / CLIP)}


def main(numbers):
    titles = [title for title in SHOWN if not numbers or title.split()[0] in numbers]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        server = ComfyServer(os.environ["COMFYUI_PATH"], ROOT, folder / "comfyui")
        server.start()
        try:
            given = give_videos(server, folder)
            for title in titles:
                begun = time.monotonic()
                graph = json.loads((ROOT / "api" / f"{title}.json").read_text(encoding="utf-8"))
                graph = for_the_miniature(title, graph)
                outputs = server.run(graph, SECONDS)
                (end,) = [number for number, node in graph.items() if node["class_type"] == "SaveVideo"]
                made = server.saved_file({"": outputs[end]})
                frames = given | {"made": frames_of(made)}
                fps = {"before": 12.5, "clip": 12.5, "made": float(look_into(made)[0])}
                target = ROOT / "example_workflows" / f"{title}.jpg"
                thumbnail(title, frames, fps).save(target, quality=QUALITY, subsampling=0, optimize=True)
                print(
                    f"{target.name}: {target.stat().st_size / 1000:.0f} kB, {time.monotonic() - begun:.0f} s",
                    flush=True,
                )
        finally:
            server.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
