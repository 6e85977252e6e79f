"""DICE-Talk Emotion From Clip."""

import logging
import math
from io import BytesIO
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
import torch
from comfy_api.latest import InputImpl, io, ui

from ...dicetalk.embedder.choice import choose_embedder
from ...dicetalk.emotion.options import SUFFIX
from ...dicetalk.emotion.text import one_line
from ...dicetalk.errors import InputError
from ...dicetalk.media.downmix import of_waveform
from ...dicetalk.reading.clip import Clip, NoCue, waveform_stream
from ..checks import in_unit_range, require_audio, require_finite, require_picture
from ..types import DiceTalk, Emotion
from .files import validated

EMBEDDERS, CLASSIFIERS = "dicetalk_embedders", "dicetalk_classifiers"
EVIDENCE, NO_MODEL = "evidence", "none"
ONE, TIMELINE = "one emotion", "timeline"
_USUAL_FPS = 25.0
_FRAMES_AT_ONCE = 16
_ROOM = 2**30  # bytes that a classifier or an embedder may want on the device beside its weights

FaceLandmarks = io.Custom("FACE_LANDMARKS")
FaceDetectionModel = io.Custom("FACE_DETECTION_MODEL")


def register_embedder_folders():
    """Make the folders known to ComfyUI, so that extra_model_paths.yaml can name more of them."""
    for name in (EMBEDDERS, CLASSIFIERS):
        folder_paths.add_model_folder_path(name, str(Path(folder_paths.models_dir) / name), is_default=True)


def embedders():
    """Name → path of the trained embedders. Looked up again each time, as files come and go."""
    return _found(EMBEDDERS, lambda path: path.suffix == SUFFIX and path.is_file())


def classifiers():
    """Name → path of the classifiers' folders, in the same way."""
    return _found(CLASSIFIERS, lambda path: (path / "config.json").is_file())


def _found(folder, fits):
    paths = [path for root in folder_paths.get_folder_paths(folder) for path in Path(root).glob("*")]
    return {path.name: path for path in sorted(paths, reverse=True) if fits(path)}


class DiceTalkEmotionFromClip(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        models = [NO_MODEL, *sorted(classifiers())]
        return io.Schema(
            node_id="DiceTalkEmotionFromClip",
            display_name="DICE-Talk Emotion From Clip",
            category="DICE-Talk/emotion",
            description="Reads an emotion from a reference clip: from the face's expression and the sound of the "
            "voice. This is not the embedder of the paper, whose weights were never released.",
            search_aliases=[
                *("reference video", "emotion transfer", "expression transfer", "driving video"),
                *("emotion recognition", "voice emotion", "facial expression", "emotion embedder"),
            ],
            inputs=[
                DiceTalk.Input(
                    "dicetalk", tooltip="From Load DICE-Talk; the emotion is placed among its eight emotions."
                ),
                io.Combo.Input(
                    "embedder",
                    options=[EVIDENCE, *sorted(embedders())],
                    default=EVIDENCE,
                    tooltip="evidence needs no training: it compares the face with the known expressions of the basic "
                    "emotions and listens to how aroused the voice is. The others are trained embedders, files of "
                    "models/dicetalk_embedders.",
                ),
                io.Combo.Input(
                    "mode",
                    options=[ONE, TIMELINE],
                    default=ONE,
                    tooltip="One emotion for the whole clip, or a timeline that follows it.",
                ),
                io.Combo.Input(
                    "face_model",
                    options=models,
                    default=NO_MODEL,
                    tooltip="With evidence: a Hugging Face image-classification model of emotions, a folder of "
                    "models/dicetalk_classifiers. It searches for the face in video or images itself.",
                ),
                io.Combo.Input(
                    "voice_model",
                    options=models,
                    default=NO_MODEL,
                    tooltip="With evidence: a Hugging Face audio-classification model of emotions, a folder of "
                    "models/dicetalk_classifiers. none listens to pitch, loudness, rate and timbre instead.",
                ),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=1000.0,
                    step=0.01,
                    tooltip="Frames a second of images and face_landmarks; 0 is the video's, or 25 without one.",
                ),
                io.Video.Input("video", optional=True, tooltip="The clip; its sound is used unless audio is wired."),
                io.Image.Input("images", optional=True, tooltip="The clip's frames, in place of video; one is enough."),
                io.Audio.Input("audio", optional=True, tooltip="The clip's voice."),
                FaceLandmarks.Input(
                    "face_landmarks",
                    optional=True,
                    tooltip="From Detect Face Landmarks (MediaPipe): its blendshapes show the expression without the "
                    "identity. Of several faces, the largest is followed.",
                ),
                FaceDetectionModel.Input(
                    "face_detection_model",
                    optional=True,
                    tooltip="From Load Face Detection Model (MediaPipe), in place of face_landmarks: faces are found "
                    "here, a few frames at a time, so the video may be hours long.",
                ),
            ],
            outputs=[
                Emotion.Output(display_name="emotion", tooltip="For DICE-Talk Sampler or Guider."),
                io.Image.Output(display_name="chart", tooltip="What was read over time, by face, voice and both."),
                io.String.Output(display_name="weights", tooltip="The weights of the eight emotions, and notes."),
                io.Float.Output(display_name="sureness", tooltip="0 knows nothing, 1 is certain all the time."),
            ],
        )

    @classmethod
    def validate_inputs(cls, embedder, face_model, voice_model):
        # Looked up again, since files may have come after ComfyUI started.
        return validated(lambda names: _chosen(*names), (embedder, face_model, voice_model))

    @classmethod
    def fingerprint_inputs(cls, embedder, face_model, voice_model, **_):
        paths = [embedders().get(embedder), classifiers().get(face_model), classifiers().get(voice_model)]
        return [_stamp(path) for path in paths]

    @classmethod
    def execute(
        cls,
        dicetalk,
        embedder,
        mode,
        face_model,
        voice_model,
        fps,
        video=None,
        images=None,
        audio=None,
        face_landmarks=None,
        face_detection_model=None,
    ) -> io.NodeOutput:
        from ...dicetalk.reading.chart import chart

        require_finite(fps=fps)
        clip = _clip(fps, video, images, audio, face_landmarks, face_detection_model)
        reader, models = _chosen(embedder, face_model, voice_model)
        device = comfy.model_management.get_torch_device()
        if reader != EVIDENCE or any(models.values()):
            files = [path for path in (reader, *models.values()) if path not in (None, EVIDENCE)]
            weights = sum(size for path in files for name, size, _ in _stamp(path) if name.endswith(SUFFIX))
            comfy.model_management.free_memory(_ROOM + 2 * weights, device)  # float16 on disk is float32 here
        whisper = None if reader == EVIDENCE else dicetalk.checkpoint.folder("whisper")
        reader = choose_embedder(reader, whisper, device=device, **models)
        try:
            reading = reader.read(clip, dicetalk.priors, mode == TIMELINE, _progress())
        except NoCue as error:
            raise InputError(
                f"{error} The inputs that can be read: face_landmarks or face_detection_model for the "
                "face, audio or video for the voice."
            ) from None
        picture = torch.from_numpy(np.array(chart(reading, clip.name), dtype=np.float32) / 255)[None]
        return io.NodeOutput(
            reading.emotion,
            picture,
            reading.text(),
            reading.sureness["combined"],
            ui=ui.PreviewImage(picture, cls=cls),
        )


def _chosen(embedder, face_model, voice_model):
    """EVIDENCE or an embedder's path; face_model and voice_model → a folder or None. InputError for what is not there.

    None, as long as another node's answer is not known, means nothing.
    """
    if embedder not in (None, EVIDENCE):
        if embedder not in list(embedders()):
            raise InputError(
                f"embedder: there is no {embedder!r} in models/{EMBEDDERS}: put its file there, or choose {EVIDENCE}."
            )
        embedder = embedders()[embedder]
    models = {"face_model": face_model, "voice_model": voice_model}
    for name, model in models.items():
        if model not in (None, NO_MODEL) and model not in list(classifiers()):
            raise InputError(f"{name}: there is no folder {model!r} with a config.json in models/{CLASSIFIERS}.")
        models[name] = classifiers().get(model)
    return embedder, models


def _stamp(path):
    """Differs once a file, or one in a folder, is another."""
    files = sorted(path.glob("*")) if path and path.is_dir() else [path]
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file]


def _progress():
    bar = comfy.utils.ProgressBar(1)

    def on_progress(done, total):
        comfy.model_management.throw_exception_if_processing_interrupted()
        if total:
            bar.update_absolute(round(done * 100), round(total * 100))

    return on_progress


def _clip(fps, video, images, audio, face_landmarks, face_detection_model):
    """The Clip of what is wired."""
    if all(each is None for each in (video, images, audio, face_landmarks)):
        raise InputError("There is no clip to read: wire video, images, audio or face_landmarks.")
    if video is not None and images is not None:
        raise InputError("Both video and images are wired, and both are the clip's pictures: wire one of them.")
    if face_landmarks is not None and face_detection_model is not None:
        raise InputError("face_landmarks and face_detection_model both give the face: wire one of them.")
    frames = sound = seconds = rate = frame_times = None
    name, blendshapes, notes = "the clip", None, tuple
    if isinstance(video, InputImpl.VideoFromFile):
        frames, sound, seconds, rate, name, frame_times = _video_file(video)
    elif video is not None:
        parts = video.get_components()
        images, rate = parts.images, float(parts.frame_rate)
        sound = _sound(parts.audio, "video") if parts.audio is not None else None
    rate = fps or rate or _USUAL_FPS
    if images is not None:
        socket = "images" if video is None else "video"
        require_picture(images, socket)
        images = in_unit_range(images, socket)
        frames, seconds = _image_stream(images, rate), len(images) / rate
    if audio is not None:
        sound = _sound(audio, "audio")
        seconds = max(seconds or 0.0, audio["waveform"].shape[-1] / float(audio["sample_rate"]))
    if face_landmarks is not None:
        own = frame_times() if frame_times is not None and not fps else ()
        still = images is not None and len(images) == 1  # which holds for as long as need be
        blendshapes, notes, end = _landmark_stream(face_landmarks, own, rate, None if still else seconds)
        seconds = max(seconds or 0.0, end)
    elif face_detection_model is not None:
        if frames is None:
            raise InputError("face_detection_model finds faces in pictures, and there are none: wire video or images.")
        blendshapes, notes = _detected_stream(frames, face_detection_model)
    return Clip(blendshapes, frames, sound, seconds, name, notes)


def _video_file(video):
    from ...dicetalk.reading.streams import frame_times, look_into, stream_audio, stream_frames

    start, length = video.get_active_trim_window()
    part = {"start": start, "length": length or math.inf}
    source = video.get_stream_source()

    def opened():
        return source if isinstance(source, str) else BytesIO(source.getvalue())  # with a position of its own

    rate, whole, has_sound = look_into(opened())
    return (
        (lambda every=0.0: stream_frames(opened(), every, **part)) if rate else None,
        (lambda: stream_audio(opened(), **part)) if has_sound else None,
        length or (max(whole - start, 0.0) if whole else None),
        rate,
        one_line(Path(source).name) if isinstance(source, str) else "the clip",
        (lambda: frame_times(opened(), **part)) if rate else None,
    )


def _sound(audio, socket):
    waveform, rate = require_audio(audio, socket)
    mono, _, notes = of_waveform(torch.nan_to_num(waveform[0].cpu(), posinf=0.0, neginf=0.0), socket)
    for note in notes:
        logging.warning("DICE-Talk Emotion From Clip: %s", note)
    return waveform_stream(mono[None], rate)


def _image_stream(images, rate):
    def stream(every=0.0):
        due = -math.inf
        for number, image in enumerate(images):
            if number / rate >= due - 1e-6:
                due = number / rate + every
                colours = image[..., :3].cpu().float().clamp(0, 1).expand(-1, -1, 3)
                yield number / rate, (colours * 255).round().to(torch.uint8).numpy()

    return stream


def _landmark_stream(landmarks, frame_times, rate, seconds):
    """`Clip.blendshapes` and `Clip.notes` of FACE_LANDMARKS, at the times of the video's frames where there are as
    many, else at a steady rate; and when they end."""
    from ...dicetalk.reading.faces import faces_stream
    from ...dicetalk.reading.landmarks import ends_apart

    try:
        frames = [[(tuple(face["bbox_xyxy"]), face["blendshapes"]) for face in faces] for faces in landmarks["frames"]]
        if not all(isinstance(shapes, dict) for faces in frames for _, shapes in faces):
            raise TypeError
    except (TypeError, KeyError):
        raise InputError(
            "face_landmarks holds no blendshapes: connect Detect Face Landmarks (MediaPipe), or a node that gives the "
            "same."
        ) from None
    times = frame_times if len(frame_times) == len(frames) else np.arange(len(frames)) / rate
    end = float(times[-1]) + 1 / rate if len(frames) else 0.0
    timed = list(zip(map(float, times), frames))
    stream, notes = faces_stream(lambda: iter(timed))
    apart = ends_apart("face_landmarks", end, seconds)
    return stream, lambda: [*notes(), *apart], end


def _detected_stream(frames, model):
    """`Clip.blendshapes` and `Clip.notes` of pictures in which a model of ComfyUI's finds faces."""
    from ...dicetalk.reading.faces import SmallFaces, faces_stream

    def detected():
        small = SmallFaces(lambda crop: look([crop])[0])
        waiting = []
        for timed in frames():
            waiting.append(timed)
            if len(waiting) == _FRAMES_AT_ONCE:
                yield from detect(waiting, small)
                waiting = []
        if waiting:
            yield from detect(waiting, small)

    def detect(timed, small):
        for (seconds, frame), faces in zip(timed, look([frame for _, frame in timed]), strict=True):
            yield seconds, faces or small.find(seconds, frame)

    def look(pictures):
        found = model.detect_batch(pictures, num_faces=0, score_thresh=0.5, variant="short")
        return [[(tuple(face["bbox_xyxy"]), face["blendshapes"]) for face in faces] for faces in found]

    return faces_stream(detected)
