"""The emotion nodes in a real ComfyUI server: what they make is saved, loaded here and compared."""

import importlib
import json

import av
import numpy as np
import pytest
import torch
from comfy_server import PromptError
from PIL import Image
from project import GRAPHS
from safetensors.numpy import load_file

from dicetalk.checkpoints.loading import load_part
from dicetalk.checkpoints.priors import load_priors
from dicetalk.emotion.drawing import COLOURS
from dicetalk.emotion.files import load_emotion, save_emotion
from dicetalk.emotion.mixing import mix
from dicetalk.emotion.options import BankOptions
from dicetalk.emotion.parsing import parse_emotion
from dicetalk.emotion.value import TokenMix
from dicetalk.model.bank import usage

QUICK_START = json.loads((GRAPHS / "quick_start.json").read_text())


@pytest.fixture(scope="module")
def priors(tiny_checkpoint):
    return load_priors(tiny_checkpoint / "emotions")


@pytest.fixture
def folder(server):
    """The folder of saved emotions; what a test leaves in it is removed."""
    folder = server.base / "models" / "dicetalk_emotions"
    yield folder
    for path in folder.glob("*"):
        path.unlink()


class Graph(dict):
    """A graph in API format that grows: `add` returns the node's first output."""

    def add(self, kind, output=0, **inputs):
        name = str(max(map(int, self), default=0) + 1)
        nested = {key: value for key, value in inputs.items() if isinstance(value, dict)}
        flat = {key: value for key, value in inputs.items() if key not in nested}
        flat |= {f"{group}.{key}": value for group, members in nested.items() for key, value in members.items()}
        self[name] = {"class_type": kind, "inputs": flat}
        return [name, output]

    def parts(self):
        return self.add("DiceTalkLoader", output=1, checkpoint="tiny", weight_dtype="default")

    def emotion(self, parts, name, intensity=1.0, **inputs):
        return self.add("DiceTalkEmotion", dicetalk=parts, emotion=name, intensity=intensity, **inputs)

    def mix(self, emotions, weights="", method="barycentre", **inputs):
        wired = {f"emotion_{letter}": emotion for letter, emotion in zip("abcdef", emotions, strict=False)}
        return self.add("DiceTalkEmotionMix", emotions=wired, weights=weights, method=method, **inputs)

    def timeline(self, parts, text, easing="as written", **emotions):
        return self.add("DiceTalkEmotionTimeline", dicetalk=parts, timeline=text, easing=easing, emotions=emotions)

    def bank(self, parts, emotion, mode="full", top_k=8, temperature=1.0, **compare):
        return self.add(
            "DiceTalkEmotionBank",
            dicetalk=parts,
            emotion=emotion,
            mode=mode,
            top_k=top_k,
            temperature=temperature,
            compare=compare,
        )

    def save(self, emotion, name, overwrite=False):
        return self.add("DiceTalkSaveEmotion", emotion=emotion, name=name, overwrite=overwrite)


def test_emotion_has_an_intensity_and_no_variation_without_spread(server, folder, priors):
    graph = Graph()
    parts = graph.parts()
    graph.save(graph.emotion(parts, "happy"), "plain")
    graph.save(graph.emotion(parts, "happy", 1.3), "strong")
    graph.save(graph.emotion(parts, "happy", variation_strength=1.0, variation_seed=5), "varied")
    server.run(graph)
    assert load_emotion(folder / "plain.safetensors") == priors["happy"]
    assert load_emotion(folder / "strong.safetensors") == parse_emotion("happy:1.3", priors)
    assert load_emotion(folder / "varied.safetensors") == priors["happy"]


def test_mix_takes_its_inputs_in_their_order_by_weights_and_method(server, folder, priors):
    graph = Graph()
    parts = graph.parts()
    emotions = [graph.emotion(parts, name) for name in ("happy", "sad", "fear")]
    for method in ("barycentre", "moments", "tokens"):
        graph.save(graph.mix(emotions, "5; 3, 2", method), method)
    graph.save(graph.mix(emotions), "equal")
    graph.save(graph.mix(emotions[:1]), "one")
    spread = graph.mix(emotions, method="moments", variation_strength=1.0, variation_seed=5)
    graph.save(spread, "varied")
    server.run(graph)
    expected = [priors[name] for name in ("happy", "sad", "fear")]
    for method in ("barycentre", "moments", "tokens"):
        assert load_emotion(folder / f"{method}.safetensors") == mix(expected, [5, 3, 2], method)
    assert isinstance(load_emotion(folder / "tokens.safetensors"), TokenMix)
    assert load_emotion(folder / "equal.safetensors") == mix(expected)
    assert load_emotion(folder / "one.safetensors") == priors["happy"]
    varied = load_emotion(folder / "varied.safetensors")
    assert varied == mix(expected, method="moments").varied(5, 1.0) != mix(expected, method="moments")


def test_timeline_knows_presets_saved_ones_and_its_inputs(server, folder, priors):
    save_emotion(priors["angry"], folder / "my mood.safetensors")
    graph = Graph()
    parts = graph.parts()
    wired = graph.mix([graph.emotion(parts, "happy"), graph.emotion(parts, "sad")])
    text = '0s neutral;\n1s "my mood":1.2 smooth; 2s emotion_b step'
    graph.save(graph.timeline(parts, text, emotion_a=graph.emotion(parts, "fear"), emotion_b=wired), "written")
    graph.save(graph.timeline(parts, text, "smooth", emotion_b=wired), "smooth")
    graph.save(graph.timeline(parts, "happy:0.5"), "constant")
    server.run(graph)
    known = {**priors, "my mood": priors["angry"], "emotion_b": mix([priors["happy"], priors["sad"]])}
    assert load_emotion(folder / "written.safetensors") == parse_emotion(text, known)
    smooth = load_emotion(folder / "smooth.safetensors")
    assert smooth == parse_emotion(text.replace("step", "smooth"), known)
    assert load_emotion(folder / "constant.safetensors") == parse_emotion("happy:0.5", priors)


def test_bank_sets_the_options_and_shows_usage_and_correlation(server, folder, priors):
    graph = Graph()
    parts = graph.parts()
    happy = graph.emotion(parts, "happy")
    sharp = graph.bank(parts, happy, "top-k", 4, 0.5)
    nearest = graph.bank(parts, graph.timeline(parts, "0s happy; 1s sad"), "nearest", emotion_a=happy)
    graph.save(sharp, "sharp")
    graph.save(nearest, "nearest")
    graph.add("PreviewImage", images=[sharp[0], 1])
    graph.add("PreviewAny", source=[sharp[0], 2])
    outputs = server.run(graph)

    options = BankOptions("top-k", 4, 0.5)
    assert load_emotion(folder / "sharp.safetensors") == priors["happy"].with_bank(options)
    timeline = load_emotion(folder / "nearest.safetensors")
    assert timeline == parse_emotion("0s happy; 1s sad", priors).with_bank(mode="nearest")
    shown = Image.open(server.saved_file({"": outputs[sharp[0]]}))
    assert shown.width > 64 * 14 and shown.height > (8 + 8) * 26 + 8 * 42
    assert shown.getextrema() != ((255, 255),) * 3
    assert shown.tobytes() != Image.open(server.saved_file({"": outputs[nearest[0]]})).tobytes()
    wired = Image.open(server.saved_file({"": outputs[str(len(graph) - 1)]}))
    assert np.abs(np.asarray(wired, int) - np.asarray(shown, int)).max() <= 1

    used, correlated = outputs[str(len(graph))]["text"][0].split("\n\n")
    rows = [row.split(",") for row in used.splitlines()[1:]]
    shares = np.array([row[2:] for row in rows[:9]], float)  # happy: averaged, then by its eight heads
    assert [row[:2] for row in rows[:9]] == [["happy", str(head)] for head in ("average", *range(8))]
    assert np.allclose(shares[0], shares[1:].mean(0), atol=1e-4) and ((shares[1:] > 0).sum(1) == 4).all()
    assert correlated.startswith("correlation,happy,angry,") and len(correlated.splitlines()) == 1 + len(priors)


def test_bank_usage_under_comfyui_is_the_librarys(pack, tiny_checkpoint, priors):
    parts = importlib.import_module(f"{pack.__name__}.nodes.parts")
    checkpoints = importlib.import_module(f"{pack.__name__}.dicetalk.checkpoints")
    found = checkpoints.resolve_checkpoint(tiny_checkpoint)
    with torch.inference_mode():
        loaded = parts.DiceTalkParts(found)
        emotions = [loaded.priors["happy"], loaded.priors["sad"].with_bank(mode="top-k", top_k=3)]
        shares = loaded.bank_usage(emotions)
    model = load_part("emo_model", found.file("emo_model"))
    expected = usage(model, [priors["happy"], priors["sad"].with_bank(mode="top-k", top_k=3)])
    assert shares.shape == expected.shape
    assert np.abs(shares - expected).max() < 1e-6
    assert np.abs(shares.sum(-1) - 1).max() < 1e-5


def test_mixed_timed_clip_driven_and_saved_emotions_each_change_the_video(server, folder, priors):
    graph = Graph()
    for number in "12567":
        node = QUICK_START[number]
        graph[number] = {**node, "inputs": dict(node["inputs"])}
    graph["7"]["inputs"]["length"] = 0.3
    parts, vae = ["5", 1], ["5", 3]
    happy, sad = graph.emotion(parts, "happy"), graph.emotion(parts, "sad")
    mixed = graph.mix([happy, sad], "0.4, 0.6")
    emotions = {
        "plain": happy,
        "mixed": mixed,
        "timed": graph.timeline(parts, "0s happy; 0.2s emotion_a", emotion_a=mixed),
        "from a clip": graph.add(
            "DiceTalkEmotionFromClip",
            dicetalk=parts,
            embedder="evidence",
            mode="one emotion",
            face_model="none",
            voice_model="none",
            fps=0.0,
            audio=["2", 0],
        ),
    }
    graph.save(mixed, "kept")

    def sampled(graph, name, emotion):
        """The nodes that save the LATENT and the video."""
        quick = {"steps": 1, "reference_scale": 1.0, "emotion_scale": 1.0}
        latent = graph.add("DiceTalkSampler", **{**QUICK_START["9"]["inputs"], "emotion": emotion, **quick})
        kept = graph.add("SaveLatent", samples=latent, filename_prefix=name)[0]
        images = graph.add("VAEDecode", samples=latent, vae=vae)
        video = graph.add("CreateVideo", images=images, fps=12.5)
        shown = graph.add("SaveVideo", video=video, filename_prefix=name, format="auto", codec="auto")[0]
        return kept, shown

    def read(outputs, nodes):
        latent, video = (server.saved_file({"": outputs[node]}) for node in nodes)
        with av.open(str(video)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return load_file(latent)["latent_tensor"], np.stack(frames)

    saved = {name: sampled(graph, name, emotion) for name, emotion in emotions.items()}
    outputs = server.run(graph)
    results = {name: read(outputs, nodes) for name, nodes in saved.items()}
    plain_latent, plain_video = results["plain"]
    assert plain_latent.shape[0] == len(plain_video) == 4
    for name in ("mixed", "timed", "from a clip"):
        latent, video = results[name]
        assert np.abs(latent - plain_latent).max() > 1e-3
        assert np.any(video != plain_video)

    again = Graph({number: graph[number] for number in "12567"})
    nodes = sampled(again, "loaded", again.add("DiceTalkLoadEmotion", name="kept"))
    loaded_latent, loaded_video = read(server.run(again), nodes)
    assert np.array_equal(loaded_latent, results["mixed"][0])
    assert np.array_equal(loaded_video, results["mixed"][1])


def test_saved_emotion_is_listed_and_loaded_without_a_restart_and_read_again_when_replaced(server, folder, priors):
    def loaded(kind, saved_as, **inputs):
        graph = Graph()
        if kind == "DiceTalkEmotion":
            inputs |= {"dicetalk": graph.parts(), "intensity": 1.0}
        graph.save(graph.add(kind, **inputs), saved_as, overwrite=True)
        server.run(graph)
        return load_emotion(folder / f"{saved_as}.safetensors")

    timeline = parse_emotion("0s happy; 1s tokens(sad + fear) smooth", priors)
    save_emotion(timeline, folder / "my scene.safetensors")
    options = server.get("/object_info/DiceTalkLoadEmotion")["DiceTalkLoadEmotion"]["input"]["required"]["name"]
    assert options[1]["options"] == ["my scene"]
    options = server.get("/object_info/DiceTalkEmotion")["DiceTalkEmotion"]["input"]["required"]["emotion"]
    assert options[1]["options"][-2:] == ["surprised", "my scene"]
    for value in (timeline, priors["sad"]):
        save_emotion(value, folder / "my scene.safetensors")
        again = loaded("DiceTalkLoadEmotion", "a", name="my scene")
        assert again == value
        assert loaded("DiceTalkEmotion", "b", emotion="my scene") == value


def test_saving_replaces_another_emotion_only_when_told(server, folder, priors):
    def save(emotion, overwrite):
        graph = Graph()
        graph.save(graph.emotion(graph.parts(), emotion), "mine", overwrite)
        server.run(graph)

    save("happy", False)
    save("happy", False)
    with pytest.raises(PromptError, match="DiceTalkSaveEmotion: name: another emotion is saved as 'mine' already"):
        save("sad", False)
    assert load_emotion(folder / "mine.safetensors") == priors["happy"]
    save("sad", True)
    assert load_emotion(folder / "mine.safetensors") == priors["sad"]


@pytest.mark.parametrize("name", ["../escaped", "..", "a/b", "/tmp/escaped", "a\\b", "", "happy", "nul"])
def test_name_that_is_no_plain_file_name_is_refused_and_nothing_written(server, folder, name):
    graph = Graph()
    graph.save(graph.emotion(graph.parts(), "happy"), name)
    before = sorted((server.base / "models").rglob("*"))
    with pytest.raises(PromptError, match="name - .*(cannot name a saved emotion|one of the presets)"):
        server.run(graph)
    with pytest.raises(PromptError):
        server.run(Graph({"1": {"class_type": "DiceTalkLoadEmotion", "inputs": {"name": name}}}))
    assert sorted((server.base / "models").rglob("*")) == before


def picture_of(server, outputs, node):
    return np.asarray(Image.open(server.saved_file({"": outputs[node]})).convert("RGB"))


def test_the_nodes_that_save_and_load_show_the_emotion_by_the_eight_of_a_checkpoint(server, folder, tiny_checkpoint):
    graph = Graph()
    parts = graph.parts()
    moods = {"mood": graph.emotion(parts, "happy"), "scene": graph.timeline(parts, "0s happy; 1s fear")}
    nodes = {name: graph.save(emotion, name)[0] for name, emotion in moods.items()}
    outputs = server.run(graph)
    pictures = {name: picture_of(server, outputs, node) for name, node in nodes.items()}
    for name, shown in {"mood": ("happy",), "scene": ("happy", "fear")}.items():
        again = Graph()
        loaded = again.add("DiceTalkLoadEmotion", name=name)
        again.save(loaded, name, overwrite=True)
        assert np.array_equal(picture_of(server, server.run(again), loaded[0]), pictures[name])
        colours = [(pictures[name] == COLOURS[each]).all(-1).sum() for each in ("happy", "fear", "sad")]
        assert [number > 100 for number in colours[:2]] == [True, "fear" in shown] and colours[2] < 300

    link = server.base / "models" / "dicetalk" / "tiny"
    link.unlink()
    try:  # without a checkpoint they do the same, and show nothing
        again = Graph()
        loaded = again.add("DiceTalkLoadEmotion", name="mood")
        saved = again.save(loaded, "copy")
        outputs = server.run(again)
        assert not outputs.get(loaded[0]) and not outputs.get(saved[0])
        assert load_emotion(folder / "copy.safetensors") == load_emotion(folder / "mood.safetensors")
    finally:
        link.symlink_to(tiny_checkpoint, target_is_directory=True)


def test_name_from_another_node_is_checked_too(server, folder):
    graph = Graph()
    name = graph.add("PrimitiveString", value="../escaped")
    graph.save(graph.emotion(graph.parts(), "happy"), name)
    with pytest.raises(PromptError, match="DiceTalkSaveEmotion: name: '../escaped' cannot name a saved emotion"):
        server.run(graph)
    assert not list(server.base.rglob("escaped*"))


REFUSED_BEFORE_RUNNING = {
    "timeline - Emotion text, at character 14, .*sad": lambda g, p: g.timeline(p, "0s happy 1.5 sad"),
    "timeline - Emotion text, .*times of a timeline must increase": lambda g, p: g.timeline(p, "1s happy; 1s sad"),
    "weights - weights, at character 6, .*much": lambda g, p: g.mix([g.emotion(p, "happy")], "0.5, much"),
    "There is no emotion 'bored': choose one of angry": lambda g, p: g.emotion(p, "bored"),
    "There is no saved emotion 'nothing'": lambda g, p: g.add("DiceTalkLoadEmotion", name="nothing"),
}
REFUSED_WHEN_RUN = {
    'timeline: Emotion text, at character 15, "bored": there is no emotion bored .known: angry': lambda g, p: (
        g.timeline(p, "0s happy;  1s bored")
    ),
    "at character 15, .emotion_c.: there is no emotion": lambda g, p: g.timeline(
        p, "0s happy;  1s emotion_c", emotion_a=g.emotion(p, "sad")
    ),
    "one number for each of the 2 wired emotions, .*it has 1": lambda g, p: g.mix(
        [g.emotion(p, "happy"), g.emotion(p, "sad")], "0.5"
    ),
    "weights of a mix must not all be 0": lambda g, p: g.mix([g.emotion(p, "happy")], "0"),
    "emotion_b is a timeline": lambda g, p: g.mix([g.emotion(p, "happy"), g.timeline(p, "0s happy; 1s sad")]),
    "differ in their bank options": lambda g, p: g.mix(
        [g.emotion(p, "happy"), g.bank(p, g.emotion(p, "sad"), "nearest")]
    ),
    "emotion_a is a timeline": lambda g, p: g.bank(
        p, g.emotion(p, "happy"), emotion_a=g.timeline(p, "0s happy; 1s sad")
    ),
}


@pytest.mark.parametrize("message", [*REFUSED_BEFORE_RUNNING, *REFUSED_WHEN_RUN])
def test_wrong_input_is_told_in_one_line_by_its_name(server, folder, message):
    graph = Graph()
    build = (REFUSED_BEFORE_RUNNING | REFUSED_WHEN_RUN)[message]
    graph.save(build(graph, graph.parts()), "wrong")
    with pytest.raises(PromptError, match=message) as refused:
        server.run(graph)
    if message in REFUSED_WHEN_RUN:
        assert len(str(refused.value).strip().splitlines()) == 1
    assert not (folder / "wrong.safetensors").exists()


def test_every_emotion_node_has_all_its_help(server):
    for kind in ("Emotion", "EmotionMix", "EmotionTimeline", "EmotionBank", "SaveEmotion", "LoadEmotion"):
        name = f"DiceTalk{kind}"
        node = server.get(f"/object_info/{name}")[name]
        assert node["category"] == "DICE-Talk/emotion" and node["description"] and node["search_aliases"]
        inputs = node["input"]["required"] | node["input"].get("optional", {})
        for label, (_, options) in inputs.items():
            assert options.get("tooltip"), f"{name}.{label} has no tooltip"
            for members in options.get("template", {}).get("input", {}).values():
                assert all(member[1].get("tooltip") for member in members.values())
        assert all(node["output_tooltips"])


def test_a_script_becomes_a_timeline_words_and_subtitles(server, folder, priors):
    graph = Graph()
    parts = graph.parts()
    speech = graph.add("LoadAudio", audio="dicetalk_speech.flac")
    text = "[happy] Hello! [sad 0.7] I am so glad to see you here today."
    given = {"dicetalk": parts, "audio": speech, "script": text, "fade": 0.3, "place_words": "auto"}
    emotion = graph.add("DiceTalkScript", **given)
    script = emotion[0]
    graph.save(emotion, "script")
    shown = graph.add(
        "DiceTalkEmotionTimeline", dicetalk=parts, timeline=[script, 1], easing="as written", words=[script, 2]
    )
    graph.save(shown, "shown")
    graph.add("PreviewAny", source=[script, 3])
    outputs = server.run(graph)

    made = load_emotion(folder / "script.safetensors")
    assert made == load_emotion(folder / "shown.safetensors")
    assert made.at(0.0) == priors["happy"]
    assert made.at(3.0) == priors["sad"].with_intensity(priors["neutral"], 0.7)
    rows = outputs[shown[0]]["dicetalk_words"]
    assert [row[0] for row in rows] == text.replace("[happy] ", "").replace("[sad 0.7] ", "").split()
    assert made.keys[-1].time == pytest.approx(rows[1][1], abs=0.006)
    assert outputs[shown[0]]["dicetalk_timeline"] == [made_text(made)]


def made_text(timeline):
    from dicetalk.emotion.parsing import to_text

    return to_text(timeline)


def test_a_wrong_script_is_named(server):
    graph = Graph()
    speech = graph.add("LoadAudio", audio="dicetalk_speech.flac")
    given = {"audio": speech, "fade": 0.3, "place_words": "sound"}
    emotion = graph.add("DiceTalkScript", dicetalk=graph.parts(), script="[hapy] Hello!", **given)
    graph.save(emotion, "script")
    with pytest.raises(PromptError, match="tag 1, .*did you mean happy"):
        server.run(graph)
