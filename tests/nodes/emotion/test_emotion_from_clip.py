"""DICE-Talk Emotion From Clip: on a real server what files can bring, and in this process what only nodes bring."""

import ast
import importlib
import inspect
import io
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from classifier_folders import write_image_classifier
from clips import film, prototype, voice, write_timed, write_video
from comfy_files import write_face_landmarker
from comfy_server import Interrupted, PromptError
from emotions import make_priors
from PIL import Image
from project import ROOT

from dicetalk.emotion.files import load_emotion
from dicetalk.emotion.timeline import EmotionTimeline
from dicetalk.errors import InputError
from dicetalk.reading.clip import BLENDSHAPES, SAMPLE_RATE

CHOICES = {"embedder": "evidence", "mode": "one emotion", "face_model": "none", "voice_model": "none", "fps": 0.0}
SMILE, FROWN = prototype("6 12", 0.8), prototype("1 4 15", 0.8)


def landmarks(rows, bystander=None):
    """FACE_LANDMARKS of (frames, 52), NaN for no face, and perhaps a smaller face beside it."""

    def face(row, box):
        shapes = dict(zip(BLENDSHAPES, row.tolist()))
        return {"bbox_xyxy": np.array(box, np.float32), "blendshapes": shapes, "presence": 1.0, "score": 1.0}

    frames = []
    for row in rows:
        faces = [] if np.isnan(row[0]) else [face(row, (10, 10, 60, 60))]
        frames.append(faces if bystander is None else [face(bystander, (70, 10, 90, 30)), *faces])
    return {"frames": frames, "image_size": (100, 100), "connection_sets": {}}


@pytest.fixture
def read(pack, monkeypatch):
    """Runs the node in this process: sockets and choices → its outputs."""
    module = importlib.import_module(f"{pack.__name__}.nodes.emotion.from_clip")
    module.register_embedder_folders()
    monkeypatch.setattr(module.ui, "PreviewImage", lambda *args, **more: None)
    emotion = importlib.import_module(f"{pack.__name__}.dicetalk.emotion").Emotion
    priors = {name: emotion(prior.mean, name=name) for name, prior in make_priors().items()}

    dicetalk = SimpleNamespace(priors=priors, checkpoint=SimpleNamespace(folder=lambda name: name))

    def run(**inputs):
        try:
            return module.DiceTalkEmotionFromClip.execute(dicetalk, **{**CHOICES, **inputs}).args
        except Exception as error:
            if type(error).__name__ == "InputError":  # the pack's own, of another module object
                raise InputError(str(error)) from error
            raise

    return run


def top(weights):
    return weights.splitlines()[1].split()[0]


# In this process


def test_face_landmarks_are_read(read):
    emotion, chart, weights, sureness = read(face_landmarks=landmarks(film((4, SMILE))), fps=25.0)
    assert top(weights) == "happy" and 0.5 < sureness <= 1
    assert chart.shape[0] == 1 and chart.shape[3] == 3 and chart.min() >= 0 and chart.max() <= 1
    assert emotion.deviation.max() > 0 and "happy" in emotion.name


def test_the_largest_of_several_faces_is_followed(read):
    rows = film((2, SMILE), (0.2, None), (2, SMILE))
    _, _, weights, _ = read(face_landmarks=landmarks(rows, bystander=FROWN))
    told = "100 frames show several faces; the largest was followed."
    assert top(weights) == "happy" and told in weights

    class Detector:
        def __init__(self):
            self.frames = iter(landmarks(rows, bystander=FROWN)["frames"])

        def detect_batch(self, images, **_):
            return [next(self.frames) for _ in images]

    images = torch.zeros(len(rows), 8, 8, 3)
    weights = read(images=images, face_detection_model=Detector(), fps=25.0)[2]
    assert top(weights) == "happy" and told in weights


def test_timeline_keeps_the_clips_time(read):
    rows = film((3, SMILE), (3, FROWN))
    for fps, seconds in ((25.0, 6.0), (50.0, 3.0), (0.0, 6.0)):
        timeline, _, _, _ = read(face_landmarks=landmarks(rows), fps=fps, mode="timeline")
        assert type(timeline).__name__ == EmotionTimeline.__name__
        assert timeline.keys[-1].time == pytest.approx(seconds - 0.25)
        assert timeline.keys[0].emotion.name.startswith("moments(happy")
        assert timeline.keys[-1].emotion.name.startswith("moments(sad")


def test_landmarks_of_a_video_are_at_its_frames(read, tmp_path):
    """30 frames at 10 a second with a smile, then 6 that stand for half a second each."""
    from comfy_api.latest import InputImpl

    path = write_timed(tmp_path / "slides.mp4", steps=[0.1] * 30 + [0.5] * 6)
    rows = np.concatenate([np.tile(SMILE, (30, 1)), np.tile(FROWN, (6, 1))])
    video = InputImpl.VideoFromFile(str(path))
    timeline, _, weights, _ = read(video=video, face_landmarks=landmarks(rows), mode="timeline")
    assert timeline.keys[-1].time == pytest.approx(5.75) and "ends at" not in weights
    _, _, weights, _ = read(video=video, face_landmarks=landmarks(rows[:20]))
    assert "The face in face_landmarks ends at" in weights and ", and the clip at 5.60 s." in weights


def test_a_single_picture_with_its_landmarks(read):
    emotion, _, weights, _ = read(images=torch.zeros(1, 32, 32, 3), face_landmarks=landmarks(film((0.04, SMILE))))
    assert top(weights) == "happy" and emotion is not None


def test_audio_of_any_rate_and_layout(read):
    samples = torch.from_numpy(voice(4.0)).repeat_interleave(2)
    audio = {"waveform": samples.expand(1, 2, -1), "sample_rate": 2 * SAMPLE_RATE}
    _, _, weights, sureness = read(audio=audio)
    assert "how aroused" in weights and 0 < sureness < 0.2
    with pytest.raises(InputError, match="audio holds a batch of 2 clips"):
        read(audio={"waveform": torch.zeros(2, 1, 100), "sample_rate": 8000})


def test_videos_from_memory_from_parts_and_trimmed(read, pack, tmp_path):
    from comfy_api.latest import InputImpl, Types

    path = write_video(tmp_path / "clip.mp4", np.concatenate([voice(4.0), np.zeros(32000, np.float32)]), seconds=6.0)
    whole = read(video=InputImpl.VideoFromFile(str(path)))
    memory = read(video=InputImpl.VideoFromFile(io.BytesIO(path.read_bytes())))
    assert memory[0] == whole[0] and "clip.mp4" in whole[0].provenance
    recorded = path.rename(tmp_path / "Screen Recording at 3.04.05\u202fPM.mp4")  # as macOS names them
    assert "3.04.05 PM.mp4" in read(video=InputImpl.VideoFromFile(str(recorded)))[0].provenance
    recorded.rename(path)
    spoken = InputImpl.VideoFromFile(str(path), start_time=0, duration=4)
    assert read(video=spoken)[3] > whole[3]
    with pytest.raises(InputError, match="The sound is silent"):
        read(video=InputImpl.VideoFromFile(str(path), start_time=4.5, duration=1))
    audio = {"waveform": torch.from_numpy(voice(4.0))[None, None], "sample_rate": SAMPLE_RATE}
    parts = Types.VideoComponents(images=torch.zeros(2, 16, 16, 3), audio=audio, frame_rate=5)
    assert "how aroused" in read(video=InputImpl.VideoFromComponents(parts))[2]


def test_faces_are_found_in_a_long_video_some_frames_at_a_time(read, tmp_path):
    from comfy_api.latest import InputImpl
    from comfy_extras.nodes_mediapipe import FaceLandmarkerModel

    class Detector:
        """Stands in for ComfyUI's model, whose weights are not at hand: a smile in every frame."""

        sizes = []

        def detect_batch(self, images, num_faces, score_thresh, variant):
            assert all(image.dtype == np.uint8 and image.shape == (48, 64, 3) for image in images)
            self.sizes.append(len(images))
            return landmarks(np.tile(SMILE, (len(images), 1)))["frames"]

    names = inspect.signature(FaceLandmarkerModel.detect_batch).parameters
    assert list(names) == list(inspect.signature(Detector.detect_batch).parameters)
    path = write_video(tmp_path / "clip.mp4", seconds=8.0, fps=5)
    _, _, weights, _ = read(video=InputImpl.VideoFromFile(str(path)), face_detection_model=Detector())
    assert top(weights) == "happy" and Detector.sizes == [16, 16, 8]


@pytest.mark.parametrize("channels", [1, 4])
def test_pictures_in_grey_or_with_alpha_are_read_by_a_face_model(read, tmp_path, channels):
    import folder_paths

    write_image_classifier(tmp_path / "brought", ["happy", "neutral"], "happy")
    folder_paths.add_model_folder_path("dicetalk_classifiers", str(tmp_path))
    with Image.open(ROOT / "demo" / "portrait.jpg") as portrait:
        pixels = np.asarray(portrait.convert("L" if channels == 1 else "RGBA").resize((256, 256)), np.float32) / 255
    images = torch.from_numpy(pixels.reshape(1, 256, 256, channels))
    assert top(read(images=images, face_model="brought")[2]) == "happy"


def test_room_is_made_for_the_weights_of_a_model(read, tmp_path, monkeypatch):
    import comfy.model_management
    import folder_paths

    room = []
    monkeypatch.setattr(comfy.model_management, "free_memory", lambda memory, device: room.append(memory))
    write_image_classifier(tmp_path / "weighty", ["happy", "neutral"], "happy")
    size = sum(file.stat().st_size for file in (tmp_path / "weighty").glob("*.safetensors"))
    folder_paths.add_model_folder_path("dicetalk_classifiers", str(tmp_path))
    with Image.open(ROOT / "demo" / "portrait.jpg") as portrait:
        pixels = np.asarray(portrait.convert("RGB").resize((256, 256)), np.float32) / 255
    read(images=torch.from_numpy(pixels)[None], face_model="weighty")
    assert size > 0 and room == [2**30 + 2 * size]
    read(face_landmarks=landmarks(film((1, SMILE))))
    assert len(room) == 1, "nothing is loaded for landmarks"


def test_a_trained_embedder_is_chosen_by_its_file(read, pack, tmp_path):
    import folder_paths

    embedder = importlib.import_module(f"{pack.__name__}.dicetalk.embedder")
    torch.manual_seed(0)
    model = embedder.EmotionEmbedder(embedder.EmbedderConfig(("happy", "neutral", "sad")))
    model.anchors.copy_(torch.stack([make_priors()[name].mean for name in model.config.emotions]))
    embedder.save_embedder(tmp_path / "mine.safetensors", model, 10.0)
    folder_paths.add_model_folder_path("dicetalk_embedders", str(tmp_path))
    emotion, chart, weights, _ = read(embedder="mine.safetensors", face_landmarks=landmarks(film((4, SMILE))))
    assert "by the embedder mine" in emotion.provenance and chart.shape[0] == 1 and "neutral" in weights
    model_folder = tmp_path / "faces"
    model_folder.mkdir()
    (model_folder / "config.json").write_text("{}")
    folder_paths.add_model_folder_path("dicetalk_classifiers", str(tmp_path))
    with pytest.raises(InputError, match="goes with the embedder evidence"):
        read(embedder="mine.safetensors", face_landmarks=landmarks(film((1, SMILE))), face_model="faces")
    for name in ("embedder", "face_model", "voice_model"):
        with pytest.raises(InputError, match=f"{name}: there is no .*lost"):
            read(**{name: "lost"}, face_landmarks=landmarks(film((1, SMILE))))


def picture(size=8):
    return torch.zeros(1, size, size, 3)


@pytest.mark.parametrize(
    "inputs, told",
    [
        ({}, "wire video, images, audio or face_landmarks"),
        ({"images": picture(), "video": object()}, "Both video and images are wired"),
        ({"images": torch.zeros(1, 8, 8, 2)}, "images has the shape .* which is no picture"),
        ({"images": torch.zeros(0, 8, 8, 3)}, "images has the shape .* which is no picture"),
        ({"images": picture()}, "The face was not read.*inputs.*: face_landmarks or face_detection_model.*audio"),
        ({"face_landmarks": {"frames": [[], []]}}, "No face was seen"),
        ({"face_landmarks": {"frames": [[{"bbox_xyxy": (0, 0, 1, 1)}]]}}, "face_landmarks holds no blendshapes"),
        ({"face_landmarks": {}}, "face_landmarks holds no blendshapes"),
        ({"face_landmarks": {"frames": []}, "face_detection_model": object()}, "both give the face"),
        (
            {"audio": {"waveform": torch.zeros(1, 1, 16000), "sample_rate": 16000}, "face_detection_model": object()},
            "face_detection_model finds faces in pictures, and there are none",
        ),
        ({"audio": {"waveform": torch.zeros(1, 1, 16000), "sample_rate": 16000}}, "The sound is silent"),
    ],
)
def test_what_cannot_be_read_is_told_by_its_sockets(read, inputs, told):
    with pytest.raises(InputError, match=told) as caught:
        read(**inputs)
    assert "\n" not in str(caught.value)


def test_choices_that_are_wired_are_checked_once_they_are_known(pack):
    module = importlib.import_module(f"{pack.__name__}.nodes.emotion.from_clip")
    module.register_embedder_folders()
    assert module.DiceTalkEmotionFromClip.validate_inputs(None, None, None) is True
    assert module.DiceTalkEmotionFromClip.fingerprint_inputs(None, None, None) == [[], [], []]


# On a real server


def graph_of(**inputs):
    """The node, what it reads, and the nodes that keep what it gives."""
    return {
        "1": {"class_type": "DiceTalkLoader", "inputs": {"checkpoint": "tiny", "weight_dtype": "default"}},
        "2": {"class_type": "DiceTalkEmotionFromClip", "inputs": {"dicetalk": ["1", 1], **CHOICES, **inputs}},
        "3": {"class_type": "DiceTalkSaveEmotion", "inputs": {"emotion": ["2", 0], "name": "read", "overwrite": True}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["2", 1], "filename_prefix": "chart"}},
        "5": {"class_type": "PreviewAny", "inputs": {"source": ["2", 2]}},
        "6": {"class_type": "PreviewAny", "inputs": {"source": ["2", 3]}},
    }


def test_a_video_becomes_a_timeline_with_a_brought_face_model(server, tmp_path):
    labels = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"]
    folder = server.base / "models" / "dicetalk_classifiers" / "faces"
    folder.mkdir(parents=True)
    write_image_classifier(folder, labels, "surprise")  # while the server runs
    with Image.open(server.base / "input" / "portrait.jpg") as portrait:
        portrait = portrait.convert("RGB").resize((256, 256))
    name = server.upload(write_video(tmp_path / "reference.mp4", voice(1.5), seconds=1.5, fps=4, picture=portrait))
    graph = graph_of(video=["7", 0], face_model="faces", mode="timeline")
    graph["7"] = {"class_type": "LoadVideo", "inputs": {"file": name}}
    outputs = server.run(graph)

    saved = server.base / "models" / "dicetalk_emotions" / "read.safetensors"
    timeline = load_emotion(saved)
    saved.unlink()
    assert isinstance(timeline, EmotionTimeline) and "surprised" in timeline.keys[0].emotion.name
    with Image.open(server.saved_file({"4": outputs["4"]})) as chart:
        assert chart.width > 900
    assert len(outputs["2"]["images"]) == 1
    weights, sureness = (outputs[node]["text"][0] for node in "56")
    lines = weights.splitlines()
    assert lines[0].split() == ["face", "voice", "combined"] and lines[1].startswith("surprised")
    assert 0.3 < float(sureness) <= 1


def test_wrong_choices_are_refused_before_anything_runs(server):
    for choice, told in (
        ({"embedder": "lost.safetensors"}, "embedder: there is no 'lost.safetensors'"),
        ({"face_model": "lost"}, "face_model: there is no folder 'lost'"),
        ({"voice_model": "lost"}, "voice_model: there is no folder 'lost'"),
    ):
        with pytest.raises(PromptError, match=told):
            server.run(graph_of(**choice))
    with pytest.raises(PromptError, match="wire video, images, audio or face_landmarks"):
        server.run(graph_of())


def test_sockets_fit_comfyuis_face_detection(server):
    shown = server.get("/object_info")
    inputs = shown["DiceTalkEmotionFromClip"]["input"]["optional"]
    assert inputs["face_landmarks"][0] == shown["MediaPipeFaceLandmarker"]["output"][0]
    assert inputs["face_detection_model"][0] == shown["LoadMediaPipeFaceLandmarker"]["output"][0]


def test_what_comfyuis_face_landmarks_hold_is_read(server, pack):
    """The network's weights are random, so that its face is none; what it hands on has the form of a real one."""
    from comfy_extras.mediapipe.face_landmarker import BLENDSHAPE_NAMES

    assert sorted(BLENDSHAPE_NAMES) == sorted(BLENDSHAPES)
    folder = server.base / "models" / "detection"
    folder.mkdir(exist_ok=True)
    write_face_landmarker(folder / "random_face.safetensors")
    graph = graph_of(face_landmarks=["10", 0])
    del graph["4"], graph["6"]
    size = {"width": 256, "height": 256, "upscale_method": "area", "crop": "disabled"}
    detect = {"detector_variant": "short", "num_faces": 1, "min_confidence": 0.5, "missing_frame_fallback": "empty"}
    graph |= {
        "7": {"class_type": "LoadImage", "inputs": {"image": "portrait.jpg"}},
        "8": {"class_type": "ImageScale", "inputs": {"image": ["7", 0], **size}},
        "9": {"class_type": "RepeatImageBatch", "inputs": {"image": ["8", 0], "amount": 3}},
        "10": {
            "class_type": "MediaPipeFaceLandmarker",
            "inputs": {"face_detection_model": ["11", 0], "image": ["9", 0], **detect},
        },
        "11": {"class_type": "LoadMediaPipeFaceLandmarker", "inputs": {"model_name": "random_face.safetensors"}},
        "12": {"class_type": "PreviewAny", "inputs": {"source": ["10", 1]}},
    }
    outputs = server.run(graph)
    boxes = ast.literal_eval(outputs["12"]["text"][0])
    assert [len(faces) for faces in boxes] == [1, 1, 1]
    weights = outputs["5"]["text"][0].splitlines()
    assert weights[0].split() == ["face", "combined"] and len(weights) == 10
    shares = [float(line.split()[-1].rstrip("%")) for line in weights[1:9]]
    assert sum(shares) == pytest.approx(100, abs=0.5) and max(shares) > min(shares)
    saved = server.base / "models" / "dicetalk_emotions" / "read.safetensors"
    assert load_emotion(saved).provenance == "read from the clip"
    saved.unlink()
    (folder / "random_face.safetensors").unlink()


def test_a_long_clip_can_be_cancelled(server, tmp_path):
    import wave

    noise = (np.random.default_rng(0).normal(0, 3000, 3600 * SAMPLE_RATE // 4)).astype("<i2")
    with wave.open(str(tmp_path / "long.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(noise.tobytes())
    graph = graph_of(audio=["7", 0])
    graph["7"] = {"class_type": "LoadAudio", "inputs": {"audio": server.upload(tmp_path / "long.wav")}}
    cancelled = []

    def on_message(message):
        if message["type"] == "progress" and message["data"]["node"] == "2" and not cancelled:
            cancelled.append((time.monotonic(), message["data"]["value"] / message["data"]["max"]))
            server.interrupt()

    with pytest.raises(Interrupted):
        server.run(graph, on_message=on_message)
    start, share = cancelled[0]
    assert share < 0.1 and time.monotonic() - start < 10
