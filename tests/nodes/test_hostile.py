"""The rows of the table of hostile input (see ../hostile_table.py) that need ComfyUI: sockets, API, routes."""

import copy
import importlib
import json
import math
import urllib.error
import urllib.request

import pytest
import torch
from comfy_server import PromptError
from hostile_table import NAMES, Row, check, files, value
from project import GRAPHS

from dicetalk.model.audio import num_frames

QUICK_START = json.loads((GRAPHS / "quick_start.json").read_text())
NAN, INFINITY = math.nan, math.inf


# ------------------------------------------------------------------------------------- what comes through sockets


class Vae:
    def encode(self, pixels):
        return torch.zeros(1, 4, pixels.shape[1] // 8, pixels.shape[2] // 8)


class ClipVision:
    image_size = 224

    def encode_image(self, image, crop):
        return {"image_embeds": torch.zeros(1, 1024)}


class Parts:
    audio_token_bytes = 4 * 32 * 1024

    def audio_tokens(self, waveform, on_chunk):
        return torch.zeros(1, 1, 1).expand(num_frames(len(waveform)), 32, 1024), torch.zeros(1, 32, 1024)


def picture(*shape, fill=0.5):
    return torch.full(shape, fill)


FACE = torch.nn.functional.pad(torch.ones(1, 40, 30), (15, 15, 10, 10))
BOX = {"x": 10.0, "y": 10.0, "width": 30.0, "height": 30.0}
PICTURE = picture(1, 60, 60, 3)


def sound(seconds=1.0, rate=16000, channels=1, fill=0.1, batch=1):
    """An AUDIO that takes no memory, however long it is."""
    count = round(seconds * rate)
    return {"waveform": torch.full((1, 1, 1), fill).expand(batch, channels, count), "sample_rate": rate}


@pytest.fixture
def uses(pack, monkeypatch):
    """What a row may be used by: name → function."""
    portrait, audio = (importlib.import_module(f"{pack.__name__}.nodes.{name}") for name in ("portrait", "speech"))
    monkeypatch.setattr(portrait, "shown", lambda *args: None)

    def prepared(given):
        image, boxes, mask = given
        made, shown, _ = portrait.DiceTalkPortrait.execute(
            image, ClipVision(), Vae(), 128, False, 0.5, bboxes=boxes, mask=mask
        ).args[:3]
        return f"{tuple(shown.shape)} of {shown.mean():.2f}, face {made.prepared.face_box}"

    def heard(given):
        sound, start, length, free = given
        monkeypatch.setattr(audio.comfy.model_management, "get_free_memory", lambda device: free)
        _, frames, seconds, spoken, *_ = audio.DiceTalkAudioFeatures.execute(Parts(), sound, start, length).args
        return f"{frames} frames, {seconds:.2f} s, sound {tuple(spoken['waveform'].shape)}"

    return {"portrait": prepared, "audio": heard}


def image(what, tensor, refused="", gives="", boxes=BOX, mask=None):
    return Row(what, value((tensor, boxes, mask)), "portrait", refused, gives)


def audio(what, given, refused="", gives="", start=0.0, length=0.0, free=64e9):
    return Row(what, value((given, start, length, free)), "audio", refused, gives)


SOCKETS = [
    image("image 1×1", picture(1, 1, 1, 3), "is outside the image, which is 1×1"),
    image("image 1×1 and no box", picture(1, 1, 1, 3), "No face was found", boxes=None),
    image("image 20,000×20", picture(1, 20, 20_000, 3), "20000×20 pixels, more than 8 times as long as wide"),
    image("image with NaN", picture(1, 60, 60, 3, fill=NAN), "image holds values that are not finite numbers"),
    image("image with infinity", picture(1, 60, 60, 3, fill=INFINITY), "image holds values that are not finite"),
    image("image of wild values", picture(1, 60, 60, 3, fill=1e30), gives=r"^\(1, 128, 128, 3\) of 1.00"),
    image("image below 0", picture(1, 60, 60, 3, fill=-5.0), gives=r"^\(1, 128, 128, 3\) of 0.00"),
    image("image of half precision", PICTURE.half(), gives=r"^\(1, 128, 128, 3\) of 0.50"),
    image("batch of 500 images", PICTURE.expand(500, -1, -1, -1), gives=r"^\(1, 128, 128, 3\) of 0.50"),
    image("batch of no image", picture(0, 60, 60, 3), "image has the shape .* which is no picture"),
    image("image without pixels", picture(1, 0, 60, 3), "image has the shape .* which is no picture"),
    image("image with alpha", picture(1, 60, 60, 4), gives=r"^\(1, 128, 128, 3\) of 0.50"),
    image("image of one channel", picture(1, 60, 60, 1), gives=r"^\(1, 128, 128, 3\) of 0.50"),
    image("image of two channels", picture(1, 60, 60, 2), "image has the shape .* which is no picture"),
    image("image of 16 channels", picture(1, 60, 60, 16), "image has the shape .* which is no picture"),
    image("mask of another size", PICTURE, "mask is 61×60 pixels and the image 60×60", mask=torch.ones(1, 60, 61)),
    image("mask empty", PICTURE, "The face mask is empty", mask=torch.zeros(1, 60, 60)),
    image("mask full", PICTURE, "The face mask covers 100% of the picture", mask=torch.ones(1, 60, 60)),
    image("mask with NaN", PICTURE, "not finite", mask=torch.full((1, 60, 60), NAN)),
    image("mask without a picture", PICTURE, "mask is", mask=torch.ones(0, 60, 60)),
    image("masks, many", PICTURE, gives=r"face \(15.0, 10.0, 45.0, 50.0\)", mask=FACE.expand(500, 60, 60)),
    image("box outside", PICTURE, "is outside the image, which is 60×60", boxes=BOX | {"x": 500.0}),
    image("box inverted", PICTURE, "is inverted or empty", boxes=BOX | {"width": -30.0}),
    image("box with NaN", PICTURE, "not a finite number", boxes=BOX | {"x": NAN}),
    image("box of numbers beyond floats", PICTURE, "bboxes does not hold boxes", boxes=BOX | {"x": 10**400}),
    image("box of text", PICTURE, "bboxes does not hold boxes", boxes=BOX | {"x": "left"}),
    image("box without a width", PICTURE, "bboxes does not hold boxes", boxes={"x": 1, "y": 1}),
    image("box that is no box", PICTURE, "bboxes does not hold boxes", boxes=7),
    image("boxes, none", PICTURE, "bboxes holds no box for the first picture", boxes=[]),
    image("boxes, none in the first picture", PICTURE, "holds no box for the first", boxes=[[], [BOX]]),
    image(
        "boxes, many", PICTURE, gives=r"face \(10.0, 10.0, 40.0, 40.0\)", boxes=[[BOX | {"width": 5.0}] * 9999 + [BOX]]
    ),
    audio("silence", sound(fill=0.0), gives=r"^13 frames, 1.04 s, sound \(1, 1, 16640\)"),
    audio("one sample", sound(1 / 16000), gives=r"^1 frames, 0.08 s, sound \(1, 1, 1280\)"),
    audio("sound at 8 kHz", sound(rate=8000), gives=r"^13 frames, 1.04 s, sound \(1, 1, 8320\)"),
    audio("sound at 192 kHz", sound(rate=192_000), gives=r"^13 frames, 1.04 s, sound \(1, 1, 199680\)"),
    audio("sound of 8 channels", sound(channels=8), gives=r"^13 frames, 1.04 s, sound \(1, 8, 16640\)"),
    audio("sound with NaN", sound(fill=NAN), "samples that are not finite numbers"),
    audio("sound of no length", sound(0), "audio holds no sound at all"),
    audio("3 h of sound, the end", sound(10_800), gives=r"^113 frames, 9.04 s", start=10_791.0),
    audio(
        "3 h of sound, past the end", sound(10_800), "start is 10801 s, but the audio lasts 10800.00 s", start=10_801.0
    ),
    audio(
        "3 h of sound, whole, where 8 GB are free",
        sound(10_800),
        r"audio lasts 10800 s, which needs 19.1 GB of memory, and 8.0 GB are free: .* set length to 4076 s at most",
        free=8e9,
    ),
    audio("3 h of sound, as much as fits", sound(10_800), gives="^50950 frames", length=4076.0, free=8e9),
    audio("3 h of sound, whole, where there is room", sound(10_800), gives="^135000 frames, 10800.00 s"),
    audio("video without sound", None, "no sound track"),
    audio("batch of sounds", sound(batch=3), "batch of 3 clips"),
    audio("sound at no rate", sound() | {"sample_rate": 0}, "sampling rate of audio is 0 Hz"),
    audio("sound at 1 Hz", sound(16000) | {"sample_rate": 1}, "sampling rate of audio is 1 Hz, and 1000 to 768000"),
    audio("sound at 1 GHz", sound() | {"sample_rate": 10**9}, "sampling rate of audio is 1000000000 Hz"),
    audio("start that is no number", sound(), "start is nan: give a finite number", start=NAN),
    audio("length that is no number", sound(), "length is nan: give a finite number", length=NAN),
    audio("length below a sample", sound(), gives=r"^1 frames, 0.08 s", length=1e-6),
]


@pytest.mark.parametrize("row", SOCKETS, ids=lambda row: row.what)
def test_socket(row, uses, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(Row(row.what, row.make, uses[row.use], row.refused, row.gives), tmp_path)


# ------------------------------------------------------------------------------------------------ values over the API


MOODS = ("surprised", "fear", "sad", "angry", "disgusted", "contempt")
GUIDED = ("model", "dicetalk", "portrait", "audio_features", "emotion", "reference_scale", "emotion_scale")
GUIDED += ("overlap", "shift", "motion_bucket", "expression_bucket")


def outputs(kind):
    """A node after the quick start's emotion, with something that asks for it."""
    more = {
        "DiceTalkEmotionMix": {"emotions.emotion_a": ["8", 0], "weights": "", "method": "barycentre"},
        "DiceTalkEmotionTimeline": {"dicetalk": ["5", 1], "timeline": "happy", "easing": "as written"},
        "DiceTalkEmotionBank": {
            "dicetalk": ["5", 1],
            "emotion": ["8", 0],
            "mode": "full",
            "top_k": 8,
            "temperature": 1.0,
        },
        "DiceTalkEmotionWheel": {"dicetalk": ["5", 1], "happy": 1.0, **dict.fromkeys(MOODS, 0.0), "intensity": 1.0},
        "DiceTalkGuider": {name: QUICK_START["9"]["inputs"][name] for name in GUIDED},
        "DiceTalkPasteBack": {"frames": ["6", 1], "portrait": ["6", 0], "feather": 0.1},
        "DiceTalkLoadEmotion": {},
        "DiceTalkEmotionFromClip": {
            **{"dicetalk": ["5", 1], "embedder": "evidence", "mode": "one emotion", "fps": 0.0, "audio": ["2", 0]},
            **{"face_model": "none", "voice_model": "none"},
        },
    }
    return more.get(kind)


def graph_with(kind, **inputs):
    """A graph that is fine but for these inputs of a node of that kind."""
    graph = copy.deepcopy(QUICK_START)
    video = {"samples": ["9", 0], "vae": ["5", 3], "fps": 12.5, "chunk_size": 10, "context": 4}
    graph["11"] = {"class_type": "DiceTalkVideo", "inputs": video}
    given = outputs(kind)
    if kind == "DiceTalkSaveEmotion" or given is not None:
        del graph["12"]  # ComfyUI runs what is asked for by an output that is fine
    if kind == "DiceTalkSaveEmotion":
        graph["20"] = {"class_type": kind, "inputs": {"emotion": ["8", 0], "overwrite": False, **inputs}}
    elif given is not None:
        graph["20"] = {"class_type": kind, "inputs": {**given, **inputs}}
        graph["21"] = {"class_type": "PreviewAny", "inputs": {"source": ["20", 0]}}
    else:
        (node,) = (node for node in graph.values() if node["class_type"] == kind)
        node["inputs"].update(inputs)
    return graph


# Node, input, value, and what the answer says.
VALUES = [
    ("DiceTalkLoader", "checkpoint", "../../secret", "There is no DICE-Talk checkpoint"),
    ("DiceTalkLoader", "checkpoint", {"a": 1}, "There is no DICE-Talk checkpoint"),
    ("DiceTalkLoader", "weight_dtype", "fp7", "Value not in list"),
    ("DiceTalkPortrait", "short_side", 63, "smaller than min"),
    ("DiceTalkPortrait", "short_side", 10**9, "bigger than max"),
    ("DiceTalkPortrait", "short_side", "wide", "Failed to convert"),
    ("DiceTalkPortrait", "short_side", NAN, "Failed to convert"),
    ("DiceTalkPortrait", "margin", -1, "smaller than min"),
    ("DiceTalkPortrait", "margin", INFINITY, "bigger than max"),
    ("DiceTalkAudioFeatures", "start", -0.1, "smaller than min"),
    ("DiceTalkAudioFeatures", "length", 1e9, "bigger than max"),
    ("DiceTalkEmotion", "intensity", 2.5, "bigger than max"),
    ("DiceTalkEmotion", "intensity", -0.1, "smaller than min"),
    ("DiceTalkEmotion", "emotion", "bored", "There is no emotion 'bored'"),
    ("DiceTalkEmotion", "emotion", "../../happy", "There is no emotion"),
    ("DiceTalkEmotion", "emotion", {"a": 1}, "There is no emotion"),
    ("DiceTalkEmotion", "variation_strength", 9, "bigger than max"),
    ("DiceTalkEmotion", "variation_seed", 2**64, "bigger than max"),
    ("DiceTalkEmotion", "variation_seed", -1, "smaller than min"),
    ("DiceTalkEmotionWheel", "happy", -0.1, "smaller than min"),
    ("DiceTalkEmotionWheel", "contempt", 1.1, "bigger than max"),
    ("DiceTalkEmotionWheel", "fear", "much", "Failed to convert"),
    ("DiceTalkEmotionWheel", "intensity", 2.5, "bigger than max"),
    ("DiceTalkEmotionWheel", "intensity", -INFINITY, "smaller than min"),
    ("DiceTalkEmotionMix", "weights", "0.5, much", "this is not a number"),
    ("DiceTalkEmotionMix", "method", "median", "Value not in list"),
    ("DiceTalkEmotionTimeline", "timeline", "1s happy; 0s sad", "times of a timeline must increase"),
    ("DiceTalkEmotionTimeline", "timeline", "happy " * 5000, "4096 is the most"),
    ("DiceTalkEmotionTimeline", "timeline", "(" * 4000, "nested deeper than 16"),
    ("DiceTalkEmotionTimeline", "timeline", "0s happy; 1e307s sad", "character 11, .*time must be from 0 to 172800"),
    ("DiceTalkEmotionTimeline", "timeline", "0s happy; 172801s sad", "character 11, .*time must be from 0 to 172800"),
    ("DiceTalkEmotionTimeline", "easing", "bounce", "Value not in list"),
    ("DiceTalkEmotionBank", "top_k", 0, "smaller than min"),
    ("DiceTalkEmotionBank", "temperature", 0.0, "smaller than min"),
    ("DiceTalkEmotionBank", "mode", "some", "Value not in list"),
    ("DiceTalkSampler", "steps", 0, "smaller than min"),
    ("DiceTalkSampler", "steps", 10**6, "bigger than max"),
    ("DiceTalkSampler", "seed", -1, "smaller than min"),
    ("DiceTalkSampler", "overlap", 25, "bigger than max"),
    ("DiceTalkSampler", "shift", -1, "smaller than min"),
    ("DiceTalkSampler", "motion_bucket", 256, "bigger than max"),
    ("DiceTalkSampler", "reference_scale", 21, "bigger than max"),
    ("DiceTalkSampler", "emotion_scale", -1, "smaller than min"),
    ("DiceTalkSampler", "guidance_from", 1e9, "bigger than max"),
    ("DiceTalkSampler", "sampler_name", "magic", "Value not in list"),
    ("DiceTalkSampler", "scheduler", "magic", "Value not in list"),
    ("DiceTalkSampler", "model", ["8", 0], "Return type mismatch"),
    ("DiceTalkGuider", "overlap", 25, "bigger than max"),
    ("DiceTalkGuider", "shift", -1, "smaller than min"),
    ("DiceTalkGuider", "expression_bucket", 256, "bigger than max"),
    ("DiceTalkGuider", "reference_scale", -1, "smaller than min"),
    ("DiceTalkGuider", "emotion_scale", INFINITY, "bigger than max"),
    ("DiceTalkGuider", "guidance_to", -1, "smaller than min"),
    ("DiceTalkGuider", "portrait", ["8", 0], "Return type mismatch"),
    ("DiceTalkPasteBack", "feather", 0.6, "bigger than max"),
    ("DiceTalkPasteBack", "feather", -0.1, "smaller than min"),
    ("DiceTalkPasteBack", "feather", "soft", "Failed to convert"),
    ("DiceTalkPasteBack", "portrait", ["6", 1], "Return type mismatch"),
    ("DiceTalkPasteBack", "background", ["8", 0], "Return type mismatch"),
    ("DiceTalkVideo", "fps", 0.0, "smaller than min"),
    ("DiceTalkVideo", "chunk_size", 0, "smaller than min"),
    ("DiceTalkVideo", "context", -1, "smaller than min"),
    ("DiceTalkEmotionFromClip", "fps", -1.0, "smaller than min"),
    ("DiceTalkEmotionFromClip", "embedder", "../../model", "embedder: there is no '../../model'"),
    ("DiceTalkEmotionFromClip", "embedder", {"a": 1}, "embedder: there is no"),
    ("DiceTalkEmotionFromClip", "face_model", "../../model", "no folder '../../model'"),
    ("DiceTalkEmotionFromClip", "voice_model", "/etc", "no folder '/etc'"),
    ("DiceTalkEmotionFromClip", "mode", "both", "Value not in list"),
    *(
        ("DiceTalkSaveEmotion", "name", name, "cannot name a saved emotion|the presets")
        for name in NAMES.values()
        if isinstance(name, str)
    ),
    *(
        ("DiceTalkLoadEmotion", "name", name, "There is no saved emotion")
        for name in ("../mine", "/etc/passwd", "a\0b", 7)
    ),
]


def ask(server, path, content=None, method=None, **headers):
    """Status and text of the answer to a request."""
    request = urllib.request.Request(server.url + path, content, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def kept(server):
    """The server's files, without its own notes and the pictures that its nodes show."""
    passing = ("user", "server.log", "temp")
    return {name: state for name, state in files(server.base).items() if not name.startswith(passing)}


@pytest.fixture(scope="module")
def untouched(server):
    """Nothing is written while these rows are tried, and the server stays up."""
    before = kept(server)
    yield server
    assert server.get("/system_stats")
    assert kept(server) == before


@pytest.mark.parametrize(
    "node, name, given, message", VALUES, ids=lambda part: str(part)[:24].encode("ascii", "replace").decode()
)
def test_value_over_the_api_is_a_400_that_names_node_and_input(untouched, node, name, given, message):
    import re

    content = json.dumps({"prompt": graph_with(node, **{name: given})}).encode()
    status, text = ask(untouched, "/prompt", content, **{"Content-Type": "application/json"})
    assert status == 400, text
    (refused,) = (each for each in json.loads(text)["node_errors"].values() if each["class_type"] == node)
    told = [f"{error['message']}: {error['details']}" for error in refused["errors"]]
    assert any(re.search(message, line) and re.search(rf": {name}\b", line) for line in told), told
    assert "Traceback" not in text


# NaN is neither below a minimum nor above a maximum, and JSON as Python reads it can hold it.
NOT_NUMBERS = [
    ("DiceTalkEmotion", "intensity", "The intensity must be a number from 0 to 2, not nan"),
    ("DiceTalkEmotion", "variation_strength", "The strength of the variation must be a number from 0 to 2, not nan"),
    ("DiceTalkEmotionWheel", "happy", "happy is nan: give a finite number"),
    ("DiceTalkEmotionWheel", "intensity", "intensity is nan: give a finite number"),
    ("DiceTalkPasteBack", "feather", "The feather must be a number from 0 to 0.5, not nan"),
    ("DiceTalkEmotionBank", "temperature", "The bank's temperature must be a number"),
    ("DiceTalkAudioFeatures", "start", "start is nan: give a finite number"),
    ("DiceTalkEmotionFromClip", "fps", "fps is nan: give a finite number"),
]


def above(graph, number):
    """A node's number and those of all that it needs."""
    wired = [value[0] for value in graph[number]["inputs"].values() if isinstance(value, list)]
    return {number}.union(*(above(graph, each) for each in wired))


@pytest.mark.parametrize("node, name, message", NOT_NUMBERS, ids=lambda part: part[:24])
def test_value_that_is_no_number_is_the_nodes_error(server, node, name, message):
    graph = graph_with(node, **{name: NAN})
    target = "20" if outputs(node) else next(n for n in graph if graph[n]["class_type"] == node)
    graph = {number: graph[number] for number in above(graph, target)}
    graph["30"] = {"class_type": "PreviewAny", "inputs": {"source": [target, 0]}}
    with pytest.raises(PromptError, match=f"^{node}: .*{message}") as refused:
        server.run(graph)
    assert len(str(refused.value).strip().splitlines()) == 1


@pytest.mark.parametrize("name", ["reference_scale", "emotion_scale", "guidance_from", "guidance_to"])
def test_guidance_that_is_no_number_is_refused_before_anything_runs(pack, name):
    sampling = importlib.import_module(f"{pack.__name__}.nodes.sampling.sampler")
    given = dict.fromkeys(("model", "dicetalk", "portrait", "audio_features", "emotion"))
    given |= {"reference_scale": 3.0, "emotion_scale": 6.0, "overlap": 0, "shift": 7}
    given |= {"motion_bucket": 8, "expression_bucket": 16, name: NAN}
    with pytest.raises(ValueError, match=f"{name} is nan: give a finite number"):
        sampling.DiceTalkGuider.execute(**given)


@pytest.mark.parametrize(
    "cpu, free, timeline, needed, fits",
    [
        (True, 64e9, False, 97.3, 6392),
        (False, 64e9, False, 44.2, None),
        (False, 16e9, False, 44.2, 3515),
        (False, 50e9, True, 61.9, 7847),
    ],
)
def test_speech_whose_latents_do_not_fit_is_refused_before_anything_runs(
    pack, monkeypatch, cpu, free, timeline, needed, fits
):
    from types import SimpleNamespace

    sampling = importlib.import_module(f"{pack.__name__}.nodes.sampling.sampler")
    monkeypatch.setattr(sampling.comfy.model_management, "get_free_memory", lambda device: free)

    class Begun(Exception):
        pass

    def begin(*args):
        raise Begun

    given = dict.fromkeys(("emotion", "reference_scale", "emotion_scale", "motion_bucket", "expression_bucket"), 1.0)
    given |= {"overlap": 0, "shift": 7, "dicetalk": SimpleNamespace(emotion_tokens=begin)}
    given["model"] = SimpleNamespace(
        load_device=torch.device("cpu" if cpu else "cuda"),
        model=SimpleNamespace(diffusion_model=None),
    )
    given["audio_features"] = SimpleNamespace(tokens=torch.zeros(1, 1, 1).expand(135_000, 32, 1024))
    given["portrait"] = SimpleNamespace(latent=torch.zeros(1, 4, 64, 64), clip_embeds=torch.zeros(1, 1024))
    if timeline:
        emotion = importlib.import_module(f"{pack.__name__}.dicetalk.emotion")
        given["emotion"] = emotion.EmotionTimeline([emotion.TimelineKey(0.0, emotion.Emotion(torch.zeros(256)))])
    with pytest.raises(ValueError if fits else Begun) as raised:
        sampling.DiceTalkGuider.execute(**given)
    if fits:
        words = f"audio_features lasts 10800 s, which needs {needed} GB of memory, and {free / 1e9:.1f} GB are free: "
        assert words in str(raised.value)
        assert f"set length of DICE-Talk Audio Features to {fits} s at most" in str(raised.value)


# ------------------------------------------------------------------------------------------------------- web routes

DOWNLOAD, CANCEL = "/dicetalk/download", "/dicetalk/download/cancel"
JSON = {"Content-Type": "application/json"}
FOREIGN = {"Origin": "https://example.org"}
# Method, path, body, headers, and the status of the answer. (What they do when asked rightly is tested with them.)
ROUTES = [
    *((method, path, b"{}", JSON, 405) for method in ("PUT", "PATCH", "DELETE") for path in (DOWNLOAD, CANCEL)),
    ("GET", CANCEL, None, {}, 404),  # ComfyUI looks for a file of that name
    ("GET", DOWNLOAD, None, FOREIGN, 403),
    ("GET", DOWNLOAD, None, {"Sec-Fetch-Site": "cross-site"}, 403),
    ("GET", DOWNLOAD, None, {"Origin": "null"}, 403),
    *(("POST", path, b"{}", JSON | FOREIGN, 403) for path in (DOWNLOAD, CANCEL)),
    ("POST", DOWNLOAD, b"{}", JSON | {"Sec-Fetch-Site": "same-site"}, 403),
    *(("POST", path, b"{}", {"Content-Type": "text/plain"}, 415) for path in (DOWNLOAD, CANCEL)),
    ("POST", DOWNLOAD, b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
    *(
        ("POST", DOWNLOAD, body, JSON, 400)
        for body in (
            b"",
            b"[]",
            b"null",
            b"{",
            b"\xff\0",
            b'{"folder": "../../elsewhere"}',
            b'{"url": "http://example.org/unet.pth"}',
            b"{}" * 10_000,
            b"[" * 100_000,
        )
    ),
    ("GET", "/dicetalk/download/..%2f..%2f..%2fetc%2fpasswd", None, {}, 404),
    ("GET", "/dicetalk/../../../../etc/passwd", None, {}, 404),
    ("GET", "/extensions/comfyui-dice-talk/..%2f..%2fdicetalk%2f__init__.py", None, {}, 404),
    ("GET", "/extensions/comfyui-dice-talk/../dicetalk/__init__.py", None, {}, 404),
]


@pytest.mark.parametrize("method, path, body, headers, status", ROUTES, ids=lambda part: str(part)[:40])
def test_route_refuses(untouched, method, path, body, headers, status):
    found, told = ask(untouched, path, body, method, **headers)
    assert found == status, told
    assert "Traceback" not in told and "root:" not in told and len(told) < 2000
