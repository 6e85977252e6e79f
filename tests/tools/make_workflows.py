"""Writes example_workflows/*.json, subgraphs/*.json and api/*.json, from the nodes that a real ComfyUI server has.

    COMFYUI_PATH=... python tests/tools/make_workflows.py [NAME ...]

Run it again when a node of a workflow gains an input; test_workflows.py says when that is.
"""

import json
import sys
import uuid
from pathlib import Path

import _paths  # noqa: F401
from project import ROOT
from workflow import AUTOGROW, is_widget, known_inputs, nested_inputs, to_graph

FOLDER, SUBGRAPHS, API = ROOT / "example_workflows", ROOT / "subgraphs", ROOT / "api"
HUGGING_FACE = "https://huggingface.co"
MODELS = {
    "sd_xl_base_1.0.safetensors": ("checkpoints", "stabilityai/stable-diffusion-xl-base-1.0/resolve/main"),
    "film_net_fp16.safetensors": (
        "frame_interpolation",
        "Comfy-Org/frame_interpolation/resolve/main/frame_interpolation",
    ),
    "RealESRGAN_x4plus.safetensors": ("upscale_models", "Comfy-Org/Real-ESRGAN_repackaged/resolve/main"),
    "mediapipe_face_fp32.safetensors": ("detection", "Comfy-Org/mediapipe/resolve/main/detection"),
}
COLUMN_GAP, ROW_GAP, TITLE = 70, 50, 30
SCALE = 0.62  # at which ComfyUI still draws the words in nodes
GROUPS = {"Models": "#3f789e", "Who": "#88a070", "What": "#b58b2a", "How": "#a1508c", "Result": "#b06634"}
GROUP_PAD, GROUP_TITLE = 14, 40
NOTE_WIDTH = 420
INPUTS, OUTPUTS = -10, -20  # ids of the two ends of a subgraph


class Node:
    """A node of a sheet; `node["name"]` is one of its outputs, for the inputs of others."""

    def __init__(self, number, kind, info):
        self.number, self.kind, self.info = number, kind, info

    def __getitem__(self, output):
        return self, self.info["output_name"].index(output)


class Port:
    """An input of a blueprint, for an input of one of the nodes in it."""

    def __init__(self, name):
        self.name = name


class Sheet:
    """A workflow that is laid out in columns, from left to right; nodes of a column are below each other.

    Args:
        object_info: what the server says of its nodes.
        note: Markdown, shown in a note at the left.
        note_height: of that note, in pixels.
    """

    def __init__(self, object_info, note, note_height):
        self.object_info, self.nodes, self.links, self.models = object_info, [], [], set()
        self.x, self.y, self.width = 0, 0, NOTE_WIDTH
        self.groups, self.ports, self.definitions = [], {}, []
        if note:
            self._place("MarkdownNote", NOTE_WIDTH, note_height, [], [], [note], {}, color="#222", bgcolor="#000")

    def column(self, width=300):
        self.x, self.y, self.width = self.x + self.width + COLUMN_GAP, 0, width

    def group(self, title):
        """What is added from here on is in a group with that title."""
        if self.y:
            self.y += GROUP_TITLE + GROUP_PAD - ROW_GAP // 2
        self.groups.append((title, len(self.nodes)))

    def add(self, kind, room=0, title=None, **given):
        """A node with the given inputs: another's output, or a widget's value; others keep their defaults.

        Args:
            room: pixels below the widgets, for a picture.
        """
        info, number = self.object_info[kind], len(self.nodes) + 1
        inputs, values, rows, tall = [], [], 0, 0
        for name, (type_, *options) in known_inputs(info).items():
            options, value = options[0] if options else {}, given.pop(name, None)
            if type_ == AUTOGROW:
                inputs += self._grown(number, name, options, value or {})
                continue
            optional = {} if name in info["input"].get("required", {}) else {"shape": 7}
            if not is_widget(type_, options):
                inputs.append({"name": name, "type": type_, **self._link(number, value, type_), **optional})
                continue
            linked = isinstance(value, (tuple, Port))
            if isinstance(type_, list):
                type_, options = "COMBO", {"options": type_} | options
            entry = {"name": name, "type": type_, "widget": {"name": name}}
            inputs.append(entry | self._link(number, value if linked else None, type_))
            values += _values(type_, options, None if linked else value)
            if isinstance(value, Port):
                self.ports[value.name]["value"] = _values(type_, options, None)
            for nested in nested_inputs(values[-1], options) if type_ == "COMFY_DYNAMICCOMBO_V3" else ():
                key = f"{name}.{nested}"
                inputs.append({"name": key, "type": type_, "widget": {"name": key}, "link": None})
                values.append("auto")
            rows += (
                1
                + bool(options.get("control_after_generate"))
                + bool(options.get("image_upload") or options.get("video_upload"))
            )
            tall += 90 if options.get("multiline") else 76 if options.get("audio_upload") else 0
        inputs.sort(key=lambda entry: "widget" in entry)  # sockets first, as the frontend has them
        assert not given, f"{kind} has no input {', '.join(given)}"
        outputs = [
            {"name": name, "type": type_, "links": None, "slot_index": slot}
            for slot, (name, type_) in enumerate(zip(info["output_name"], info["output"], strict=True))
        ]
        properties, extra = {"Node name for S&R": kind}, {"title": title} if title else {}
        if models := [value for value in values if value in MODELS]:
            properties["models"] = [_model(name) for name in models]
        sockets = max(sum("widget" not in each for each in inputs), len(outputs))
        height = 20 * sockets + 24 * rows + tall + room + 16
        self._place(kind, self.width, height, inputs, outputs, values, properties, **extra)
        return Node(number, kind, info)

    def _place(self, kind, width, height, inputs, outputs, values, properties, **extra):
        node = {"id": len(self.nodes) + 1, "type": kind, "pos": [self.x, self.y], "size": [width, height]}
        node |= {"flags": {}, "order": len(self.nodes), "mode": 0, "inputs": inputs, "outputs": outputs}
        self.nodes.append(node | {"properties": properties, "widgets_values": values} | extra)
        self.y += height + TITLE + ROW_GAP

    def _grown(self, number, name, options, values):
        """The members of an input that grows, with an empty one behind those that are wired."""
        template = options["template"]
        ((_, (type_, *_)),) = template["input"]["required"].items()
        entries = []
        for member in template["names"][: max(template["min"], len(values) + 1)]:
            key = f"{name}.{member}"
            link = self._link(number, values.get(member))
            entries.append({"label": member, "name": key, "type": type_, "shape": 7, **link})
        return entries

    def _link(self, number, value, type_=None):
        if value is None:
            return {"link": None}
        if isinstance(value, Port):
            port = self.ports.setdefault(value.name, {"type": type_, "links": []})
            self.links.append([len(self.links) + 1, INPUTS, None, number, None, type_])
            port["links"].append(len(self.links))
            return {"link": len(self.links)}
        source, slot = value
        self.links.append([len(self.links) + 1, source.number, slot, number, None, source.info["output"][slot]])
        output = self.nodes[source.number - 1]["outputs"][slot]
        output["links"] = [*(output["links"] or []), len(self.links)]
        return {"link": len(self.links)}

    def _settle(self):
        """Give each link the place of its input, which is known when all inputs are there."""
        places = {
            each["link"]: place for node in self.nodes for place, each in enumerate(node["inputs"]) if each["link"]
        }
        for link in self.links:
            link[4] = places[link[0]]

    def _frames(self):
        """The groups as ComfyUI draws them, around the nodes that are in them."""
        ends = [*(first for _, first in self.groups), len(self.nodes)][1:]
        for number, ((title, first), end) in enumerate(zip(self.groups, ends, strict=True), 1):
            boxes = [(*node["pos"], *node["size"]) for node in self.nodes[first:end]]
            left, top = min(x for x, *_ in boxes) - GROUP_PAD, min(y for _, y, *_ in boxes) - TITLE - GROUP_TITLE
            right = max(x + width for x, _, width, _ in boxes) + GROUP_PAD
            bottom = max(y + height for _, y, _, height in boxes) + GROUP_PAD
            box = [left, top, right - left, bottom - top]
            yield {"id": number, "title": title, "bounding": box, "color": GROUPS[title], "font_size": 24, "flags": {}}

    def blueprint(self, name, output):
        """The definition of a subgraph with this sheet's nodes; `output` is the (name, node's output) that it gives."""
        given, (source, slot) = output
        type_ = source.info["output"][slot]
        self._settle()
        for place, facts in enumerate(self.ports.values()):
            for link in facts["links"]:
                self.links[link - 1][2] = place
        last = len(self.links) + 1
        links = [*self.links, [last, source.number, slot, OUTPUTS, 0, type_]]
        wires = self.nodes[source.number - 1]["outputs"][slot]
        wires["links"] = [*(wires["links"] or []), last]
        height = 20 * len(self.ports) + 40
        keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
        return {
            "id": _id(f"blueprint/{name}"),
            "version": 1,
            "state": {"lastGroupId": 0, "lastNodeId": len(self.nodes), "lastLinkId": last, "lastRerouteId": 0},
            "revision": 0,
            "config": {},
            "name": name,
            "inputNode": {"id": INPUTS, "bounding": [-260, 0, 140, height]},
            "outputNode": {"id": OUTPUTS, "bounding": [self.x + self.width + COLUMN_GAP, 0, 120, 60]},
            "inputs": [
                {
                    "id": _id(f"blueprint/{name}/{port}"),
                    "name": port,
                    "type": facts["type"],
                    "linkIds": facts["links"],
                    "pos": [-140, 20 + 20 * place],
                }
                for place, (port, facts) in enumerate(self.ports.items())
            ],
            "outputs": [
                {
                    "id": _id(f"blueprint/{name}/{given}"),
                    "name": given,
                    "type": type_,
                    "linkIds": [last],
                    "pos": [self.x + self.width + COLUMN_GAP + 20, 20],
                }
            ],
            "widgets": [],
            "nodes": self.nodes,
            "groups": list(self._frames()),
            "links": [dict(zip(keys, link, strict=True)) for link in links],
            "extra": {},
        }

    def add_blueprint(self, sheet, definition, room=0, **given):
        """A blueprint as one node, and its definition in the workflow."""
        inputs, values, number = [], [], len(self.nodes) + 1
        for port, facts in sheet.ports.items():
            widget = {"widget": {"name": port}} if "value" in facts else {}
            entry = {"name": port, "type": facts["type"], **widget}
            inputs.append(entry | self._link(number, given.get(port), facts["type"]))
            values += facts.get("value", [])[:1]
        inputs.sort(key=lambda entry: "widget" in entry)
        output = definition["outputs"][0]
        outputs = [{"name": output["name"], "type": output["type"], "links": None, "slot_index": 0}]
        proxies = [["-1", port] for port, facts in sheet.ports.items() if "value" in facts]
        height = 20 * sum("widget" not in entry for entry in inputs) + 24 * len(proxies) + room + 16
        properties = {"proxyWidgets": proxies}
        name = definition["name"]
        self._place(definition["id"], self.width, height, inputs, outputs, values, properties, title=name)
        self.definitions.append(definition)
        return Node(number, name, {"output": [output["type"]], "output_name": [output["name"]]})

    def workflow(self, name):
        self._settle()
        definitions = {"definitions": {"subgraphs": self.definitions}} if self.definitions else {}
        return {
            "id": _id(name),
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
            "nodes": self.nodes,
            "links": self.links,
            "groups": list(self._frames()),
            "config": {},
            "extra": {"ds": {"scale": SCALE, "offset": [120, 190]}, "dicetalk_template": True},  # web/template_view.js
            "version": 0.4,
            **definitions,
        }


def _id(name):
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"comfyui-dice-talk/{name}"))


def _values(type_, options, value):
    """What `widgets_values` holds for one input: its value, and those of the widgets that ComfyUI adds to it."""
    if value is None:
        value = options.get("default")
    if value is None:
        choices = options.get("options") or [None]
        value = choices[0]["key"] if type_ == "COMFY_DYNAMICCOMBO_V3" else choices[0]
    values = [value]
    if control := options.get("control_after_generate"):
        values.append(control if isinstance(control, str) else "fixed")
    if options.get("image_upload") or options.get("video_upload"):
        values.append("image")
    return values + 2 * [None] * bool(options.get("audio_upload"))


def _model(name):
    directory, place = MODELS[name]
    return {"name": name, "url": f"{HUGGING_FACE}/{place}/{name}", "directory": directory}


SCRIPT = "[happy] Hello! [surprised 0.8] I am so glad [happy] to see you here today."
BLUEPRINT_INPUTS = ("image", "audio", "emotion", "intensity", "seed", "size", "steps")


LICENCES = "The weights and emotions are CC BY-NC-SA 4.0 (non-commercial); Stable Video Diffusion has its own licence."
DEMO = (
    "`dicetalk_portrait.jpg` and `dicetalk_speech.flac` are examples, which the pack puts into ComfyUI's `input` "
    "folder; take your own instead."
)
DICE_TALK = (
    "`models/dicetalk/`: the folders `DICE-Talk/`, `whisper-tiny/` and `emotions/`. **Download** in Load DICE-Talk "
    "fetches them, and so does `python -m dicetalk download` in the pack's folder."
)
SVD = (
    "`models/checkpoints/svd_xt.safetensors` (stabilityai/stable-video-diffusion-img2vid-xt on Hugging Face, which "
    "asks for your consent to its licence first): Load DICE-Talk takes its VAE and CLIP vision tower."
)


def note(title, steps, models=(), more=(), examples=DEMO, needed=(DICE_TALK, SVD), licences=LICENCES):
    """The Markdown of a note: what the workflow does, which models it needs and where they go."""
    lines = [f"# DICE-Talk: {title}", "", *(f"{number}. {step}" for number, step in enumerate(steps, 1))]
    lines += ["", "**Models**", *(f"- {model}" for model in (*needed, *models))]
    for text in (*more, examples, licences):
        lines += ["", text]
    return "\n".join(lines).replace("`", "**")  # code is hard to read in notes: dark blue on black


class Talking(Sheet):
    """The nodes that most workflows share."""

    checkpoint = "DICE-Talk"

    def loaders(self):
        self.column(350)
        self.group("Models")
        self.talk = self.add("DiceTalkLoader", room=200, checkpoint=self.checkpoint)

    def picture(self, title="Load Image", image="dicetalk_portrait.jpg"):
        self.column(330)
        self.group("Who")
        self.image = self.add("LoadImage", room=260, title=title, image=image)["IMAGE"]

    def who(self, **portrait):
        self.portrait = self.add(
            "DiceTalkPortrait",
            room=330,
            image=self.image,
            clip_vision=self.talk["clip_vision"],
            vae=self.talk["vae"],
            **portrait,
        )

    def what(self, speech=None, file="dicetalk_speech.flac"):
        self.column(330)
        self.group("What")
        self.speech = speech or self.add("LoadAudio", audio=file)["AUDIO"]
        self.audio = self.add("DiceTalkAudioFeatures", dicetalk=self.talk["dicetalk"], audio=self.speech)

    def begin(self, picture="Load Image", **portrait):
        """Models, Who and What; How is next."""
        self.loaders()
        self.picture(picture)
        self.who(**portrait)
        self.what()

    def how(self, width=None):
        """Where the emotion is made: below the speech, or in a column of that width."""
        if width:
            self.column(width)
        self.group("How")

    def emotion(self, name, intensity=1.0, **more):
        return self.add(
            "DiceTalkEmotion", room=220, dicetalk=self.talk["dicetalk"], emotion=name, intensity=intensity, **more
        )["emotion"]

    def conditions(self, emotion):
        return {
            "model": self.talk["MODEL"],
            "dicetalk": self.talk["dicetalk"],
            "portrait": self.portrait["portrait"],
            "audio_features": self.audio["audio_features"],
            "emotion": emotion,
        }

    def sample(self, emotion, **settings):
        self.column(420)
        self.group("Result")
        return self.add("DiceTalkSampler", room=60, **self.conditions(emotion), **settings)["latent"]

    def decode(self, latent):
        return self.add("VAEDecode", samples=latent, vae=self.talk["vae"])["IMAGE"]

    def video(self, latent, **more):
        """Latent to file, decoded without visible borders."""
        sound = {"fps": self.audio["fps"], "audio": self.audio["audio"]}
        self.save(self.add("DiceTalkVideo", samples=latent, vae=self.talk["vae"], **sound, **more)["video"])

    def video_of_images(self, images, fps=None):
        made = self.add("CreateVideo", images=images, fps=fps or self.audio["fps"], audio=self.audio["audio"])
        self.save(made["VIDEO"])

    def save(self, video):
        self.add("SaveVideo", video=video, filename_prefix="video/DICE-Talk")


def talking_portrait(object_info):
    """The blueprint "Talking Portrait (DICE-Talk)": its sheet, and its definition."""
    sheet = Talking(object_info, None, 0)
    sheet.x = -COLUMN_GAP - NOTE_WIDTH
    sheet.image, sheet.speech = Port("image"), Port("audio")
    sheet.loaders()
    sheet.column(330)
    sheet.group("Who")
    sheet.who(short_side=Port("size"))
    sheet.what(sheet.speech)
    sheet.how()
    emotion = sheet.emotion(Port("emotion"), Port("intensity"))
    latent = sheet.sample(emotion, seed=Port("seed"), steps=Port("steps"))
    sound = {"fps": sheet.audio["fps"], "audio": sheet.audio["audio"]}
    video = sheet.add("DiceTalkVideo", samples=latent, vae=sheet.talk["vae"], **sound)["video"]
    sheet.ports = {name: sheet.ports[name] for name in BLUEPRINT_INPUTS}
    return sheet, sheet.blueprint("Talking Portrait (DICE-Talk)", ("video", video))


def miniature(object_info):
    """The whole way with the checkpoint that comes with the pack's source."""
    text = note(
        "miniature",
        [
            "**Run.** A drawn face talks, also without a GPU. The video appears beside it, and is in *output/video*.",
            "Choose another *emotion* in **DICE-Talk Emotion**, and run again.",
        ],
        more=["It shows some emotions better than others. To make real portraits talk, open *1 Quick start*."],
        examples="`dicetalk_drawn_portrait.png` and `dicetalk_drawn_speech.flac` were drawn and spoken by this "
        "project. The miniature has seen other drawn people, and no photograph.",
        needed=["**miniature** in Load DICE-Talk. It comes with `git clone`, not with the registry's zip."],
        licences="The miniature is Apache 2.0, as the pack is.",
    )
    sheet = Talking(object_info, text, 420)
    sheet.checkpoint = "miniature"
    sheet.loaders()
    sheet.picture(image="dicetalk_drawn_portrait.png")
    sheet.who(short_side=64)
    sheet.what(file="dicetalk_drawn_speech.flac")
    sheet.how()
    latent = sheet.sample(sheet.emotion("happy"))
    sheet.video(latent)
    return sheet


def quick_start(object_info):
    """Portrait, speech, emotion, video."""
    text = note(
        "quick start",
        [
            "**Load Image**: one person, face to the camera.",
            "**Load Audio**: what they say.",
            "**Talking Portrait**: *emotion* and *intensity* say how they feel, and how strongly.",
            "**Run.** The video appears beside it, and is in *output/video*.",
        ],
        more=[
            "When weights are missing: open the node with the button in its corner; **Load DICE-Talk** in it says "
            "which, and has a **Download** button. There too is all that the node does.",
        ],
    )
    inner, definition = talking_portrait(object_info)
    sheet = Sheet(object_info, text, 560)
    sheet.column(330)
    sheet.group("Who")
    image = sheet.add("LoadImage", room=260, image="dicetalk_portrait.jpg")["IMAGE"]
    sheet.group("What")
    speech = sheet.add("LoadAudio", audio="dicetalk_speech.flac")["AUDIO"]
    sheet.column(400)
    sheet.group("How")
    talking = sheet.add_blueprint(inner, definition, room=60, image=image, audio=speech)
    sheet.column(460)
    sheet.group("Result")
    sheet.add("SaveVideo", room=420, video=talking["video"], filename_prefix="video/DICE-Talk")
    return sheet


def frames_25_fps(object_info):
    text = note(
        "25 frames a second",
        [
            "The model draws 12.5 frames a second.",
            "**Run Frame Interpolation Model** puts one frame between every two.",
            "**Create Video** plays them at 25 frames a second, its *fps*.",
        ],
        [
            "`models/frame_interpolation/film_net_fp16.safetensors` (Comfy-Org/frame_interpolation), or one of "
            "the RIFE models from there."
        ],
        ["For 50 frames a second, set *multiplier* to 4 and *fps* to 50."],
    )
    sheet = Talking(object_info, text, 560)
    sheet.begin()
    sheet.how()
    emotion = sheet.emotion("happy")
    latent = sheet.sample(emotion)
    images = sheet.decode(latent)
    model = sheet.add("FrameInterpolationModelLoader", model_name="film_net_fp16.safetensors")["INTERP_MODEL"]
    images = sheet.add("FrameInterpolate", interp_model=model, images=images, multiplier=2)["IMAGE"]
    sheet.video_of_images(images, 25.0)
    return sheet


def mixed_emotion(object_info):
    text = note(
        "mixed emotion",
        [
            "Each **DICE-Talk Emotion** is one part of the mix, with its own intensity.",
            "**DICE-Talk Emotion Mix** mixes them by *weights*: one number for each, in their order. A new input "
            "appears when the last one is wired.",
            "Its preview shows the shares.",
        ],
        more=["To mix by hand instead, put **DICE-Talk Emotion Wheel** in the place of the three."],
    )
    sheet = Talking(object_info, text, 560)
    sheet.begin()
    sheet.how(330)
    parts = {"emotion_a": sheet.emotion("surprised"), "emotion_b": sheet.emotion("happy", 1.2)}
    mix = sheet.add("DiceTalkEmotionMix", room=110, emotions=parts, weights="0.4, 0.6")["emotion"]
    latent = sheet.sample(mix)
    sheet.video(latent)
    return sheet


def emotion_timeline(object_info):
    text = note(
        "emotion timeline",
        [
            "**DICE-Talk Emotion Timeline** changes the emotion while the portrait speaks: drag its keys over the "
            "speech, double-click to add one, or write the text.",
            "`1s happy:1.2 smooth` is happy, a little stronger, one second into the video, and reached smoothly.",
            "`(sad 0.7 + fear 0.3)` is a mix.",
        ],
        more=["Emotions that are wired into the node are called *emotion_a*, *emotion_b* … in the text."],
    )
    sheet = Talking(object_info, text, 560)
    sheet.begin()
    sheet.how(520)
    emotion = sheet.add(
        "DiceTalkEmotionTimeline",
        room=560,
        dicetalk=sheet.talk["dicetalk"],
        timeline="0s neutral; 1s happy:1.2 smooth; 2.2s (surprised 0.6 + happy 0.4) smooth",
    )["emotion"]
    latent = sheet.sample(emotion)
    sheet.video(latent)
    return sheet


def emotion_follows_speech(object_info):
    text = note(
        "emotion follows the speech",
        [
            "**DICE-Talk Script** takes what is said, with emotions in brackets, and finds each word in the speech: "
            "the emotion comes with its first word.",
            "After a run, **DICE-Talk Emotion Timeline** shows the words and the emotions. Unplug its *timeline* to "
            "move keys by hand.",
            "*subtitles* become a track of the saved video, which players can show.",
        ],
        more=[
            "**What it can:** place words that are spoken as they are written, within 0.2 s nearly always where "
            "the speech is clear. **What it cannot:** hear which emotion is meant; you write it. Words that are not "
            "spoken, music and noise make the times worse.",
            "To have the emotion read from the voice, wire the speech into DICE-Talk Emotion From Clip with *mode* "
            "timeline: it hears how aroused a voice is, loud and high or low and slow, and can hardly distinguish "
            "happy from angry.",
        ],
    )
    sheet = Talking(object_info, text, 760)
    sheet.begin()
    sheet.how(520)
    script = sheet.add(
        "DiceTalkScript", room=260, dicetalk=sheet.talk["dicetalk"], audio=sheet.audio["audio"], script=SCRIPT
    )
    emotion = sheet.add(
        "DiceTalkEmotionTimeline",
        room=560,
        dicetalk=sheet.talk["dicetalk"],
        timeline=script["timeline"],
        words=script["words"],
    )["emotion"]
    latent = sheet.sample(emotion)
    sheet.video(latent, subtitles=script["subtitles"])
    return sheet


def custom_sampling(object_info):
    text = note(
        "custom sampling",
        [
            "**DICE-Talk Guider** is DICE-Talk's guidance as ComfyUI's GUIDER, and gives the LATENT to start from.",
            "**SamplerCustomAdvanced** takes any sampler, sigmas and noise with it.",
            "Here: DPM++ 2M with 20 steps. As published: *euler*, *karras*, 25 steps.",
        ],
        more=["LoRA, compile and cache nodes go between **Load DICE-Talk** and both places that its MODEL goes to."],
    )
    sheet = Talking(object_info, text, 560)
    sheet.begin()
    sheet.how()
    emotion = sheet.emotion("happy")
    sheet.column(330)
    sheet.group("Result")
    guider = sheet.add("DiceTalkGuider", room=140, **sheet.conditions(emotion))
    noise = sheet.add("RandomNoise", noise_seed=0)["NOISE"]
    sampler = sheet.add("KSamplerSelect", sampler_name="dpmpp_2m")["SAMPLER"]
    sigmas = sheet.add("BasicScheduler", model=sheet.talk["MODEL"], scheduler="karras", steps=20)["SIGMAS"]
    sheet.column(420)
    latent = sheet.add(
        "SamplerCustomAdvanced",
        room=60,
        noise=noise,
        guider=guider["guider"],
        sampler=sampler,
        sigmas=sigmas,
        latent_image=guider["latent"],
    )["output"]
    sheet.video(latent)
    return sheet


def generated_portrait(object_info):
    text = note(
        "generated portrait, upscaled video",
        [
            "Stable Diffusion XL draws a person from the prompt: a portrait with the face to the camera.",
            "DICE-Talk lets the portrait talk.",
            "An upscaling model enlarges the frames by 4, and **Upscale Image By** scales them to 1024 pixels.",
        ],
        [
            "`models/checkpoints/sd_xl_base_1.0.safetensors` (stabilityai/stable-diffusion-xl-base-1.0). Any node that "
            "gives an IMAGE can take the place of the nodes of Stable Diffusion XL.",
            "`models/upscale_models/RealESRGAN_x4plus.safetensors` (Comfy-Org/Real-ESRGAN_repackaged).",
        ],
        examples="`dicetalk_speech.flac` is an example, which the pack puts into ComfyUI's `input` folder.",
    )
    sheet = Talking(object_info, text, 640)
    sheet.loaders()
    sheet.column(330)
    sheet.group("Who")
    xl = sheet.add("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors")
    wanted = (
        "photograph of a woman, head and shoulders, facing the camera, neutral expression, mouth closed, soft light"
    )
    positive = sheet.add("CLIPTextEncode", clip=xl["CLIP"], title="Who it is", text=wanted)["CONDITIONING"]
    unwanted = "profile, hands, hat, glasses, text, watermark"
    negative = sheet.add("CLIPTextEncode", clip=xl["CLIP"], title="What to leave out", text=unwanted)["CONDITIONING"]
    empty = sheet.add("EmptyLatentImage", width=1024, height=1024)["LATENT"]
    sheet.column(300)
    drawn = sheet.add(
        "KSampler",
        room=40,
        model=xl["MODEL"],
        positive=positive,
        negative=negative,
        latent_image=empty,
        steps=30,
        cfg=7.0,
    )["LATENT"]
    sheet.image = sheet.add("VAEDecode", samples=drawn, vae=xl["VAE"])["IMAGE"]
    sheet.who(crop=True, margin=0.6)
    sheet.what()
    sheet.how()
    emotion = sheet.emotion("happy")
    latent = sheet.sample(emotion)
    images = sheet.decode(latent)
    model = sheet.add("UpscaleModelLoader", model_name="RealESRGAN_x4plus.safetensors")["UPSCALE_MODEL"]
    images = sheet.add("ImageUpscaleWithModel", upscale_model=model, image=images)["IMAGE"]
    images = sheet.add("ImageScaleBy", image=images, upscale_method="lanczos", scale_by=0.5)["IMAGE"]
    sheet.video_of_images(images)
    return sheet


def paste_back(object_info):
    text = note(
        "back into the picture",
        [
            "**Load Image**: a photograph in which a face is only a part.",
            "**DICE-Talk Portrait** with *crop* cuts a square around the face; *margin* says how much around it.",
            "**DICE-Talk Paste Back** puts the talking frames where they were cut from, with a soft edge (*feather*).",
        ],
        more=[
            "**Two faces**: a second row of Portrait, Audio Features, Sampler, VAE Decode and Paste Back, with a "
            "*mask* on the other face. Give the frames of the first Paste Back to the *background* of the second.",
        ],
    )
    sheet = Talking(object_info, text, 600)
    sheet.begin("Photograph", crop=True)
    sheet.how()
    emotion = sheet.emotion("happy")
    latent = sheet.sample(emotion)
    images = sheet.decode(latent)
    portrait = sheet.portrait["portrait"]
    sheet.video_of_images(sheet.add("DiceTalkPasteBack", frames=images, portrait=portrait)["frames"])
    return sheet


def emotion_from_clip(object_info):
    text = note(
        "emotion from a clip",
        [
            "**Load Video**: a clip of your own, of a person, anyone, who speaks or acts with the emotion that you "
            "want (**reference.mp4** is its placeholder).",
            "**DICE-Talk Emotion From Clip** reads the expression with MediaPipe's face model, and the voice. "
            "Its chart shows what it found; *mode* makes one emotion of it, or a timeline that follows the clip.",
            "The portrait speaks with that emotion.",
        ],
        ["`models/detection/mediapipe_face_fp32.safetensors` (Comfy-Org/mediapipe)."],
        ["What is read is an estimate, and not the paper's embedder, which was not released."],
    )
    sheet = Talking(object_info, text, 600)
    sheet.begin()
    sheet.how(330)  # with nothing below the clip, as the page makes the node as tall as the clip is
    clip = sheet.add("LoadVideo", room=240, title="Clip with the emotion", file="dicetalk_reference.mp4")["VIDEO"]
    sheet.column(420)
    model = sheet.add("LoadMediaPipeFaceLandmarker", model_name="mediapipe_face_fp32.safetensors")
    emotion = sheet.add(
        "DiceTalkEmotionFromClip",
        room=240,
        dicetalk=sheet.talk["dicetalk"],
        mode="timeline",
        video=clip,
        face_detection_model=model["FACE_DETECTION_MODEL"],
    )["emotion"]
    latent = sheet.sample(emotion)
    sheet.video(latent)
    return sheet


def long_audio(object_info):
    text = note(
        "long speech",
        [
            "Speech of any length: *start* and *length* of **DICE-Talk Audio Features** choose a part of it.",
            "**DICE-Talk Sampler** works in windows of 25 frames.",
            "**DICE-Talk Video** decodes, doubles the frames to 25 a second and writes a few at a time when the "
            "video is saved, so that the pictures never have to be in memory all at once.",
        ],
        ["`models/frame_interpolation/film_net_fp16.safetensors` (Comfy-Org/frame_interpolation)."],
        ["Without *interp_model*, *smooth_motion* adds the frames between, without another model."],
    )
    sheet = Talking(object_info, text, 600)
    sheet.begin()
    sheet.how()
    emotion = sheet.emotion("happy")
    latent = sheet.sample(emotion)
    model = sheet.add("FrameInterpolationModelLoader", model_name="film_net_fp16.safetensors")["INTERP_MODEL"]
    sheet.video(latent, interp_model=model)
    return sheet


def re_act(object_info):
    text = note(
        "re-act",
        [
            "**Load Video**: a video of one person (**reference.mp4** is a still picture, as a placeholder).",
            "**DICE-Talk Re-act** takes it in the place of a portrait, every frame of it, and gives its sound.",
            "**DICE-Talk Emotion**: the emotion that the person is to have instead.",
            "**DICE-Talk Sampler** starts from the frames: *denoise* says how much is made again, 0.4 to 0.7.",
        ],
        more=[
            "**Another voice** (dubbing): wire **Load Audio** into Audio Features instead of the video's sound. The "
            "speech may be shorter than the video, not longer.",
            "Nobody has measured with trained weights how much of the head stays at which *denoise*.",
        ],
        examples="`dicetalk_reference.mp4` is an example, which the pack puts into ComfyUI's `input` folder.",
    )
    sheet = Talking(object_info, text, 640)
    sheet.loaders()
    sheet.column(330)
    sheet.group("Who")
    video = sheet.add("LoadVideo", room=240, title="Video of a person", file="dicetalk_reference.mp4")["VIDEO"]
    sheet.column(330)
    sheet.group("What")
    towers = {"clip_vision": sheet.talk["clip_vision"], "vae": sheet.talk["vae"]}
    sheet.portrait = sheet.add("DiceTalkReact", room=330, video=video, **towers)
    sheet.audio = sheet.add("DiceTalkAudioFeatures", dicetalk=sheet.talk["dicetalk"], audio=sheet.portrait["audio"])
    sheet.how(330)
    latent = sheet.sample(sheet.emotion("sad"), denoise=0.55)
    sheet.video(latent)
    return sheet


def dialogue(object_info):
    text = note(
        "dialogue",
        [
            "**Load Image**: one picture with two persons or more, faces to the camera.",
            "**Load Audio**: what both say; *turns* of **DICE-Talk Dialogue** says who speaks from when on, with - "
            "for nobody. Or wire an audio for each person, or one with a channel for each, and leave *turns* empty.",
            "**DICE-Talk Emotion**: one for each person, from the left, also while they only listen.",
            "Each person is made in a crop of their own and put back into the picture. Its preview shows the crops.",
        ],
        more=[
            "*faces* holds boxes, as the example is drawn. Empty it for a photograph: all faces that are found are "
            "taken, from the left. If those are the wrong ones, name them by number, or as boxes."
        ],
        examples="`dicetalk_two.jpg` and `dicetalk_speech.flac` are examples, which the pack puts into ComfyUI's "
        "`input` folder; take your own instead.",
    )
    sheet = Talking(object_info, text, 640)
    sheet.loaders()
    sheet.column(330)
    sheet.group("Who")
    image = sheet.add("LoadImage", room=200, image="dicetalk_two.jpg")["IMAGE"]
    sheet.group("What")
    speech = sheet.add("LoadAudio", audio="dicetalk_speech.flac")["AUDIO"]
    sheet.how(330)
    parts = {"emotion_a": sheet.emotion("happy"), "emotion_b": sheet.emotion("neutral")}
    sheet.column(420)
    sheet.group("Result")
    made = sheet.add(
        "DiceTalkDialogue",
        room=260,
        model=sheet.talk["MODEL"],
        dicetalk=sheet.talk["dicetalk"],
        clip_vision=sheet.talk["clip_vision"],
        vae=sheet.talk["vae"],
        image=image,
        emotions=parts,
        audios={"audio_a": speech},
        turns="0s 1; 1.1s 2",
        faces="92,84,292,309; 466,84,686,299",
    )
    sheet.save(made["video"])
    return sheet


# By level: the title is the file's name, and what ComfyUI lists.
WORKFLOWS = {
    "0 Miniature": miniature,
    "1 Quick start": quick_start,
    "2 Mixed emotion": mixed_emotion,
    "3 Emotion timeline": emotion_timeline,
    "4 Emotion from a clip": emotion_from_clip,
    "5 Back into the picture": paste_back,
    "6 Long speech": long_audio,
    "7 Frame interpolation": frames_25_fps,
    "8 Generated portrait": generated_portrait,
    "9 Custom sampling": custom_sampling,
    "10 Emotion follows the speech": emotion_follows_speech,
    "11 Re-act": re_act,
    "12 Dialogue": dialogue,
}


def main(arguments):
    import os
    import tempfile

    from comfy_server import ComfyServer

    if arguments[:1] and Path(arguments[0]).suffix == ".json":
        object_info = json.loads(Path(arguments.pop(0)).read_text(encoding="utf-8"))
    else:
        with tempfile.TemporaryDirectory() as base:
            server = ComfyServer(os.environ["COMFYUI_PATH"], FOLDER.parent, base)
            server.start()
            object_info = server.get("/object_info")
            server.stop()
    for title, make in WORKFLOWS.items():
        if not arguments or title in arguments:
            workflow = make(object_info).workflow(make.__name__)
            write(FOLDER / f"{title}.json", workflow)
            write(API / f"{title}.json", to_graph(workflow, object_info))
    if not arguments:
        sheet, definition = talking_portrait(object_info)
        alone = Sheet(object_info, None, 0)
        alone.column(400)
        alone.add_blueprint(sheet, definition)
        write(SUBGRAPHS / f"{definition['name']}.json", alone.workflow(f"alone/{definition['name']}"))


def write(path, workflow):
    text = json.dumps(workflow, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
