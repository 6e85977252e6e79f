"""A dialogue: the persons of one picture, each made as a clip of their own and pasted back into it."""

from fractions import Fraction
from pathlib import Path
from typing import Callable, Sequence

from ..errors import InputError
from ..job import Job, defaults
from ..media.paste import FEATHER, MAX_FEATHER
from ..rendering import Made, load_pipeline
from ..sampling.student import PUBLISHED_SETTINGS, own_settings, student_text

_SOUND_RATE = 48000  # of recordings that are mixed
_SETTINGS = (
    *("checkpoint", "fps", "size", "margin", "seed", "steps", "reference_scale", "emotion_scale"),
    *("speech_strength", "emotion_strength", "decode_chunk_size", "device", "dtype"),
)


def render_dialogue(
    job: Job,
    emotions: Sequence[str],
    audios: Sequence[str],
    turns: str = "",
    faces: str = "",
    feather: float = FEATHER,
    say: Callable[[str], None] = print,
) -> Made:
    """Make the video of several persons who talk with each other.

    Args:
        job: the picture as its portrait, the output, and how it is made; its audio does not count, and what a dialogue
            cannot do, such as another sampler or a meter, has to be left out. Each person is made in a crop of `size`
            pixels; person n has the seed `seed` + n - 1.
        emotions: of each person, as texts.
        audios: a file for each person; or one for all, with a channel for each person, or with `turns`.
        turns: as `dicetalk.media.tracks.parse_turns`.
        faces: as `dicetalk.media.persons.prepare_persons`.
        feather: as `dicetalk.media.paste.paste_back`.
        say: gets each line about what is done.

    Raises:
        InputError: something cannot be used; the message names it.
    """
    import numpy as np
    import torch

    from ..checkpoints.finding import resolve_checkpoint
    from ..checkpoints.priors import load_priors, read_emotion
    from ..emotion.parsing import resolve
    from ..media.image import load_image
    from ..media.paste import paste_back
    from ..media.persons import prepare_persons
    from ..media.video import write_video
    from ..memory import choose_device, choose_dtype

    if len(emotions) < 2:
        raise InputError("A dialogue has two persons or more: give an emotion for each.")
    if not 0 <= feather <= MAX_FEATHER:
        raise InputError(f"The feather must be a number from 0 to {MAX_FEATHER:g}, not {feather!r}.")
    given = [name for name, default in defaults().items() if name != "speed" and getattr(job, name) != default]
    unused = [name for name in given if name not in (*_SETTINGS, "portrait", "audio", "output")]
    if unused:
        raise InputError(f"A dialogue does not use {' and '.join(unused)}: leave that out.")
    for text in emotions:
        read_emotion(text)  # a typing error is reported before the checkpoint is looked for
    job.check_files()
    picture = load_image(job.portrait)
    tracks, rate, heard = _tracks(audios, turns, len(emotions))
    checkpoint, device = resolve_checkpoint(job.checkpoint), choose_device(job.device)
    priors = load_priors(checkpoint.folder("emotions"))
    values = [resolve(read_emotion(text, priors), priors, text) for text in emotions]
    persons = prepare_persons(picture, len(emotions), faces, job.size, job.margin)
    if checkpoint.untrained:
        say(f"Note: the checkpoint {checkpoint.name} is untrained, so the faces will be noise.")

    chosen = {name: getattr(job, name) for name in PUBLISHED_SETTINGS}
    own = own_settings(checkpoint.student, chosen)
    if checkpoint.student is not None:
        say(f"Note: {student_text(checkpoint.student, chosen)}")
    pipeline = load_pipeline(checkpoint, choose_dtype(job.dtype, device), device)
    latents = []
    for number, (person, track, emotion) in enumerate(zip(persons, tracks, values, strict=True)):
        say(person.notes[0])
        pipeline.set_progress_bar_config(desc=f"Person {number + 1} of {len(persons)}", unit="window", disable=None)
        latents.append(
            pipeline(
                person,
                track,
                emotion,
                num_inference_steps=own["steps"],
                reference_scale=own["reference_scale"],
                emotion_scale=own["emotion_scale"],
                sampler=own["sampler"],
                generator=torch.Generator("cpu").manual_seed(job.seed + number),
                speech_strength=job.speech_strength,
                emotion_strength=job.emotion_strength,
                output_type="latent",
            ).frames
        )
    whole = torch.from_numpy(np.array(picture.convert("RGB"))).float()[None] / 255
    height, width = (side // 2 * 2 for side in whole.shape[1:3])
    shown = [_frames(pipeline, each, job) for each in latents]

    def pasted():
        for frames in zip(*shown, strict=True):
            made = whole
            for frame, person in zip(frames, persons, strict=True):
                made = paste_back(torch.from_numpy(frame).float()[None] / 255, made, person.crop_box, feather)
            yield made[0, :height, :width].numpy()

    settings = {name: value for name, value in job.settings().items() if name in (*_SETTINGS, "portrait", "output")}
    settings |= {name: value for name, value in own.items() if name in settings}
    settings |= {"emotions": list(emotions), "audios": [Path(audio).name for audio in audios], "turns": turns}
    settings |= {"faces": [list(person.face_box) for person in persons], "feather": feather}
    count = write_video(job.output, pasted(), Fraction(job.fps), heard, rate, {"dicetalk": settings})
    return Made(count, count / float(job.fps), width, height)


def _frames(pipeline, latents, job):
    """(height, width, 3) uint8 frames of one person, decoded when they are wanted."""
    from ..media.frame_rate import double_frame_rate
    from ..media.pixels import as_pixels

    chunks = pipeline.decode(latents, job.decode_chunk_size)
    frames = (as_pixels(frame, 8) for chunk in chunks for frame in chunk.permute(0, 2, 3, 1).numpy())
    return double_frame_rate(frames) if job.fps == "25" else frames


def _tracks(audios, turns, persons):
    """Each person's speech at 16 kHz, all equally long; and the video's sound: its rate, and the sound."""
    from ..media.audio import load_sound
    from ..media.tracks import by_channels, by_turns, equally_long, mixed, parse_turns
    from ..model.audio import SAMPLE_RATE

    if len(audios) > 1:
        if len(audios) != persons:
            raise InputError(f"There are {len(audios)} recordings and {persons} persons: give one for each, or one.")
        if turns.strip():
            raise InputError(
                "turns are for one recording of all persons, and several are given: leave one of them out."
            )
        sounds = [load_sound(audio) for audio in audios]
        heard = mixed([sound.mono(_SOUND_RATE) for sound in sounds])
        return equally_long([sound.speech for sound in sounds]), _SOUND_RATE, heard
    sound = load_sound(audios[0])
    if turns.strip():
        tracks = by_turns(sound.speech, SAMPLE_RATE, parse_turns(turns, persons), persons)
    else:
        tracks = equally_long(by_channels(sound.channels(SAMPLE_RATE), persons, audios[0]))
    return tracks, *sound.for_video()
