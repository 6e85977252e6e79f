"""From recordings to kept features: what a step needs, computed once with the frozen models, in shards.

Frames are those nearest to every 80 ms. The face box is found in the first picture that shows a face (or given), and
one crop holds for the whole clip, as the published face mask is one rectangle a clip.
"""

import json
from pathlib import Path

import numpy as np
import torch

from ..emotion.options import FPS
from ..errors import InputError
from ..media.faces import detect_face
from ..media.portrait import prepare_portrait
from ..model.audio import SAMPLES_PER_FRAME, audio_features, num_frames
from .dataset import SHARD, Record, read_records, shards, write_shard

FRAME = 1 / FPS  # seconds
SILENCE = 1e-3  # root mean square of full scale below which a recording counts as silent
_VERSION = 1


def prepare(
    sources,
    folder,
    pipeline,
    size=512,
    least_frames=25,
    most_frames=250,
    per_shard=32,
    embedder=None,
    models=None,
    on_clip=None,
):
    """Compute and keep the features of recordings; those that are there already are passed over.

    Args:
        sources: `recordings.Source`s.
        folder: of the shards. What an ended run wrote stays; at most the last `per_shard` recordings are lost.
        pipeline: a `DiceTalkPipeline` in float32, of which the VAE, the CLIP tower and Whisper are used, each on its
            own device.
        size: pixels of the square crop's sides, a multiple of 64.
        least_frames, most_frames: shorter recordings are left out, longer ones are cut.
        per_shard: recordings in a file.
        embedder: reads the Gaussian of a recording off it, `(source) -> (2, 256)`; None keeps none.
        models: identifies the models, so that features of others are computed again.
        on_clip: called as `on_clip(source, problem)`; the problem is None, or says why the recording is left out.

    Returns:
        How many were prepared now, were there already, and were left out.

    Raises:
        InputError: the folder cannot be written to, or holds shards that this did not write.
    """
    folder = Path(folder)
    there = {record.name: record.made_from for path in shards(folder) for record in read_records(path)}
    number = 1 + max((int(path.stem.split("-")[1]) for path in shards(folder)), default=-1)
    counts, held = {"prepared": 0, "there": 0, "left out": 0}, []

    def keep():
        nonlocal number, held
        if held:
            write_shard(folder / SHARD.format(number), held)
            number, held = number + 1, []

    for source in sources:
        problem = None
        try:
            made_from = _made_from(source, size, most_frames, models, embedder)
            if source.name in there:
                if there[source.name] != made_from:
                    raise InputError(
                        f"{folder} holds {source.name} made from other files or otherwise: name another folder."
                    )
                counts["there"] += 1
                continue
            held.append(_features(source, pipeline, size, least_frames, most_frames, embedder, made_from))
            counts["prepared"] += 1
        except InputError as error:
            problem = str(error)
            counts["left out"] += 1
        if on_clip is not None:
            on_clip(source, problem)
        if len(held) == per_shard:
            keep()
    keep()
    return counts


def _made_from(source, size, most_frames, models, embedder):
    def stamp(path):
        if path is None:
            return None
        try:
            status = path.stat()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error
        return [path.name, status.st_size, status.st_mtime_ns]

    files = [stamp(each) for each in (source.video, source.audio, source.landmarks)]
    label = [source.emotion, source.level, source.person, source.split, source.face_box, source.fps]
    return json.dumps([_VERSION, files, label, size, most_frames, models, embedder is not None])


@torch.no_grad()
def _features(source, pipeline, size, least_frames, most_frames, embedder, made_from):
    """(Record, tensors) of a recording; InputError where it cannot be used."""
    sound = _sound(source)
    frames = _frames(source, min(num_frames(len(sound)), most_frames))
    if len(frames) < least_frames:
        raise InputError(f"{source.name} lasts {len(frames)} frames of 80 ms, and {least_frames} are the least.")
    sound = sound[: len(frames) * SAMPLES_PER_FRAME]
    if float(np.sqrt(np.mean(np.square(sound)))) < SILENCE:
        raise InputError(f"{source.name} is silent.")
    box = source.face_box or _face_box(frames, source)
    portraits = [prepare_portrait(frame, box, size, crop=True) for frame in frames]
    images = [each.image for each in portraits]
    latents = [pipeline._encode_latent(image, pipeline.vae.device) for image in images]
    embeds = [pipeline._encode_clip(image, pipeline.image_encoder.device) for image in images]
    parts = {
        "latents": torch.cat(latents).cpu().half(),
        "clip": torch.cat(embeds).cpu().half(),
        "audio": audio_features(pipeline.audio_encoder, sound)[: len(frames)].half(),
        "face_mask": torch.from_numpy(np.rint(255 * portraits[0].face_mask).astype(np.uint8)),
    }
    for name in ("latents", "clip", "audio"):
        if not parts[name].isfinite().all():
            raise InputError(f"{source.name}: {name} are not finite: prepare it in another precision.")
    if source.landmarks is not None:
        parts["blendshapes"] = _blendshapes(source, len(frames))
    if embedder is not None:
        parts["gaussian"] = embedder(source).float()
    return (
        Record(
            name=source.name,
            emotion=source.emotion,
            level=source.level,
            person=source.person,
            split=source.split,
            frames=len(frames),
            size=tuple(parts["latents"].shape[2:]),
            gaussian=embedder is not None,
            made_from=made_from,
        ),
        parts,
    )


def _sound(source):
    from ..media.audio import load_audio

    path = source.audio or source.video
    if path.is_dir():
        raise InputError(f"{source.name}: pictures in a folder have no sound; name it in the column audio.")
    return load_audio(path)


def _frames(source, most):
    """PIL images, the last one at or before every 80 ms, as many as there are and at most `most`."""
    from PIL import Image

    frames, last, end = [], None, 0.0
    for seconds, picture in _pictures(source):
        while len(frames) < most and seconds > len(frames) * FRAME + 1e-6:
            frames.append(last if last is not None else picture)
        last, end = picture, seconds
        if len(frames) == most:
            break
    if last is not None and len(frames) < most and len(frames) * FRAME <= end + 1e-6:
        frames.append(last)
    return [each if isinstance(each, Image.Image) else Image.fromarray(each) for each in frames]


def _pictures(source):
    if not source.video.is_dir():
        from ..reading.streams import look_into, stream_frames

        rate, _, _ = look_into(source.video)
        if rate is None:
            raise InputError(f"{source.video} has no pictures.")
        yield from stream_frames(source.video)
        return
    from ..media.image import load_image

    for number, path in enumerate(_picture_files(source.video)):
        yield number / source.fps, load_image(path)


def _picture_files(folder):
    """The pictures of a folder by name; InputError where there are none."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))
    if not files:
        raise InputError(f"{folder} holds no pictures.")
    return files


def _face_box(frames, source):
    """The face in the first of some pictures that shows one."""
    problem = None
    for frame in frames[:: max(1, len(frames) // 4)]:
        try:
            return detect_face(frame)
        except InputError as error:
            problem = error
    raise InputError(f"{source.name}: no face was found in it ({problem})")


def _blendshapes(source, count):
    from ..reading.landmarks import placed, read_landmarks
    from ..reading.streams import frame_times

    read = read_landmarks(source.landmarks)
    if source.video.is_dir():
        pictures = np.arange(len(_picture_files(source.video))) / source.fps
    else:
        pictures = frame_times(source.video)
    times, _ = placed(read, source.landmarks, pictures)
    places = np.searchsorted(times, np.arange(count) * FRAME + 1e-6, side="right") - 1
    return torch.from_numpy(np.ascontiguousarray(read.values[places.clip(0, len(read.values) - 1)])).half()
