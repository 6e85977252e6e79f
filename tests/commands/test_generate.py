import json
import os
import shutil
from argparse import Namespace
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image
from project import DEMO

from dicetalk.checkpoints.finding import Checkpoint
from dicetalk.checkpoints.priors import load_priors
from dicetalk.cli import main
from dicetalk.emotion.files import save_emotion
from dicetalk.emotion.value import Emotion
from dicetalk.job import Job
from dicetalk.media.container import read_metadata
from dicetalk.rendering import Inputs, read_inputs, video_metadata
from dicetalk.script.subtitles import parse_srt

PORTRAIT, SPEECH = DEMO / "portrait.jpg", DEMO / "speech.flac"


@pytest.fixture
def generate(tiny_checkpoint, tmp_path, capsys):
    """Run `dicetalk generate` on the examples, small and short; returns exit code, standard output and error."""

    def run(**changes):
        options = {
            "portrait": PORTRAIT,
            "audio": SPEECH,
            "emotion": "happy",
            "output": tmp_path / "out.mp4",
            "checkpoint": tiny_checkpoint,
            "size": 64,
            "steps": 2,
            "length": 0.4,
            "device": "cpu",
        } | changes
        arguments = []
        for name, value in options.items():
            if value is not None:
                arguments += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        code = main(["generate", *arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"portrait": "nowhere.png"}, ["nowhere.png", "does not exist"]),
        ({"portrait": SPEECH}, ["speech.flac", "not an image"]),
        ({"audio": "nowhere.wav"}, ["nowhere.wav", "does not exist"]),
        ({"audio": PORTRAIT}, ["portrait.jpg", "no audio track"]),
        ({"emotion": "hapy"}, ["hapy", "did you mean happy"]),
        ({"emotion": "happy:"}, ["Emotion text", "at the end"]),
        ({"emotion": "happy:9"}, ["Emotion text"]),
        ({"emotion": "nowhere.safetensors"}, ["nowhere.safetensors"]),
        ({"checkpoint": "/nowhere"}, ["/nowhere", "dicetalk download", "the miniature"]),
        ({"face": "1,2,3"}, ["--face", "x1,y1,x2,y2"]),
        ({"face": "1,2,3,nan"}, ["--face", "x1,y1,x2,y2"]),
        ({"face": "600,600,700,700"}, ["600,600,700,700", "outside"]),
        ({"face": "300,300,100,100"}, ["300,300,100,100", "inverted"]),
        ({"steps": 0}, ["--steps is 0"]),
        ({"size": 63}, ["--size is 63"]),
        ({"size": 100000}, ["--size is 100000"]),
        ({"seed": -1}, ["--seed is -1"]),
        ({"start": -1}, ["--start is -1"]),
        ({"start": 60}, ["speech.flac", "60 s", "past the end"]),
        ({"length": 0}, ["--length is 0"]),
        ({"emotion_scale": "nan"}, ["--emotion-scale is nan"]),
        ({"reference_scale": -2}, ["--reference-scale is -2"]),
        ({"reference_scale": 1e308}, ["--reference-scale is 1e+308", "0 to 20"]),
        ({"emotion_scale": 20.5}, ["--emotion-scale is 20.5", "0 to 20"]),
        ({"start": 1e308}, ["--start is 1e+308", "0 to 172800"]),
        ({"length": 1e308}, ["--length is 1e+308", "172800"]),
        ({"margin": "inf", "crop": True}, ["--margin is inf"]),
        ({"decode_chunk_size": 0}, ["--decode-chunk-size is 0"]),
        ({"device": "abacus"}, ["--device abacus"]),
        ({"output": "/nowhere/out.mp4"}, ["/nowhere", "does not exist"]),
        ({"output": "out.avi"}, ["out.avi", ".mp4"]),
        ({"noise": "published", "device": "cpu"}, ["--noise is published", "--device is cpu"]),
        ({"output": "x" * 225 + ".mp4"}, ["The name of the output", "too long"]),
    ],
)
def test_bad_input_is_told_in_one_line(generate, tmp_path, monkeypatch, changes, words):
    monkeypatch.setattr("dicetalk.rendering.load_pipeline", lambda *_: pytest.fail("the weights were loaded"))
    monkeypatch.chdir(tmp_path)

    code, out, err = generate(**changes)

    assert (code, out) == (2, "")
    assert err.startswith("dicetalk generate: error: ")
    assert len(err.strip().splitlines()) == 1
    assert all(word in err for word in words), err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["out.mp4.resume", "out.mp4.resume.old"])
@pytest.mark.parametrize("resume", [None, True])
def test_a_folder_where_the_steps_are_kept_is_refused_before_the_work(generate, tmp_path, monkeypatch, name, resume):
    monkeypatch.setattr("dicetalk.rendering.load_pipeline", lambda *_: pytest.fail("the weights were loaded"))
    (tmp_path / name).mkdir()
    code, _, err = generate(resume=resume)
    assert code == 2
    assert f"{name} is a folder" in err and "--output" in err


def test_no_face(generate, tmp_path):
    Image.new("RGB", (256, 256), "grey").save(tmp_path / "grey.png")
    code, _, err = generate(portrait=tmp_path / "grey.png")
    assert code == 2
    assert "No face" in err
    assert "--face" in err


def test_no_checkpoint_names_download_and_the_miniature(generate, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    code, _, err = generate(checkpoint=None)
    assert code == 2
    assert "dicetalk download" in err
    assert "the miniature" in err


def test_the_files_that_are_read_are_not_overwritten(generate, tmp_path):
    video = tmp_path / "speech.mp4"
    shutil.copy(SPEECH, video)
    code, _, err = generate(audio=video, output=tmp_path / "." / "speech.mp4")
    assert code == 2
    assert "--audio" in err
    assert video.read_bytes() == SPEECH.read_bytes()


@pytest.mark.parametrize("option", ["--fps", "--dtype"])
def test_unknown_choices(option, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["generate", "--portrait", "a", "--audio", "b", "--output", "c.mp4", option, "7"])
    assert exit.value.code == 2
    assert option in capsys.readouterr().err


@pytest.mark.parametrize(("fps", "frames"), [("12.5", 5), ("25", 10)])
def test_a_video_is_made(generate, tmp_path, fps, frames):
    code, out, err = generate(fps=fps, emotion="happy:1.3", seed=7)

    assert code == 0, err
    assert "untrained" in out and "noise" in out
    assert f"{tmp_path / 'out.mp4'}: {frames} frames" in out
    with av.open(str(tmp_path / "out.mp4")) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert video.average_rate == Fraction(fps)
        assert abs(audio.duration * audio.time_base - video.duration * video.time_base) <= 1 / video.average_rate
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [picture.shape for picture in pictures] == [(64, 64, 3)] * frames
    assert any(np.any(picture != pictures[0]) for picture in pictures[1:])

    metadata = json.loads(read_metadata(tmp_path / "out.mp4")["dicetalk"])
    expected = {"emotion": "happy:1.3", "seed": 7, "steps": 2, "portrait": "portrait.jpg", "untrained": True}
    assert expected.items() <= metadata.items()
    assert {"version", "dtype", "face", "size", "reference_scale", "emotion_scale", "audio", "fps"} <= metadata.keys()
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_the_same_seed_gives_the_same_video(generate, tmp_path):
    videos = {}
    for name, seed in (("a.mp4", 1), ("b.mp4", 1), ("c.mp4", 2)):
        assert generate(output=tmp_path / name, seed=seed, length=0.16)[0] == 0
        with av.open(str(tmp_path / name)) as container:
            videos[name] = np.stack([frame.to_ndarray() for frame in container.decode(video=0)])
    assert np.array_equal(videos["a.mp4"], videos["b.mp4"])
    assert not np.array_equal(videos["a.mp4"], videos["c.mp4"])


def test_a_speed_is_kept_in_the_video(generate, tmp_path):
    """Steps are given, so that they are those; the rest is the speed's."""
    code, _, err = generate(speed="draft", length=0.16, guidance_reuse=2, steps=3)
    assert code == 0, err
    kept = json.loads(read_metadata(tmp_path / "out.mp4")["dicetalk"])
    expected = {"sampler": "euler", "schedule": "karras", "deep_cache": 3, "clamp_windows": False}
    assert (expected | {"guidance_reuse": 2, "steps": 3, "speed": None}).items() <= kept.items()


def test_a_speed_that_is_interrupted_gives_the_same_video(generate, tmp_path, monkeypatch):
    """Interrupted after two steps. The third one needs inner levels of the second, which are in no state, so that the
    run resumes after the first; later ones take up what guidance added and what the sampler remembers."""
    from dicetalk.sampling import loop, resume

    quick = {"speed": "fast", "guidance_reuse": 2, "sampler": "dpmpp_2m", "steps": 4, "length": 0.16}
    monkeypatch.setattr(resume, "SECONDS", 0)
    assert generate(**quick, output=tmp_path / "whole.mp4")[0] == 0
    denoise, steps = loop.denoise_window, []

    def interrupted(*args, **options):
        steps.append(args[7])
        if args[7] == 2:
            raise KeyboardInterrupt
        return denoise(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "denoise_window", interrupted)
        assert generate(**quick)[0] == 130 and steps[-1] == 2
    code, out, err = generate(**quick, resume=True)
    assert code == 0 and "Resuming after step 1 of 4" in out, err
    videos = []
    for name in ("whole.mp4", "out.mp4"):
        with av.open(str(tmp_path / name)) as container:
            videos.append(np.stack([frame.to_ndarray() for frame in container.decode(video=0)]))
    assert np.array_equal(*videos)


def test_a_video_tells_files_by_their_names_alone(generate, tmp_path, tiny_checkpoint):
    mood = tmp_path / "mine" / "my mood.safetensors"
    save_emotion(Emotion(load_priors(tiny_checkpoint / "emotions")["sad"].mean), mood)
    code, _, err = generate(emotion=f" {mood}", length=0.1, steps=1)
    assert code == 0, err
    kept = read_metadata(tmp_path / "out.mp4")
    assert json.loads(kept["dicetalk"])["emotion"] == "my mood.safetensors"
    assert str(tmp_path) not in str(kept) and str(tiny_checkpoint.parent) not in str(kept)


def test_of_two_checkpoints_of_one_name_a_video_does_not_tell_the_folder(tmp_path):
    checkpoint = Checkpoint(f"DICE-Talk ({tmp_path})", tmp_path, {})
    job = Job(emotion="sad", portrait="a.png", audio="a.wav", output="a.mp4")
    portrait = Namespace(face_box=(0, 0, 1, 1), crop_box=(0, 0, 1, 1))
    inputs = Inputs(None, portrait, None, None, checkpoint, "cpu", torch.float32)
    assert video_metadata(job, inputs)["checkpoint"] == "DICE-Talk"


def test_crop_face_and_timeline(generate, tmp_path):
    code, out, err = generate(
        crop=True, margin=0.2, face="180,60,320,250", emotion="0s neutral; 0.2s (sad 0.7 + fear) smooth", length=0.24
    )
    assert code == 0, err
    metadata = json.loads(read_metadata(tmp_path / "out.mp4")["dicetalk"])
    assert metadata["face"] == [180, 60, 320, 250]
    x1, y1, x2, y2 = metadata["crop_box"]
    assert x2 - x1 < 300 and y2 - y1 < 300


def test_the_video_may_keep_the_portraits_resolution(generate, tmp_path):
    code, out, err = generate(keep_resolution=True, crop=True, face="180,60,320,250", length=0.1)
    assert code == 0, err
    x1, y1, x2, y2 = json.loads(read_metadata(tmp_path / "out.mp4")["dicetalk"])["crop_box"]
    with av.open(tmp_path / "out.mp4") as video:
        frame = next(video.decode(video=0))
    assert (frame.width, frame.height) == ((x2 - x1) // 2 * 2, (y2 - y1) // 2 * 2) != (64, 64)
    assert f"{frame.width}×{frame.height} pixels" in out


def test_less_than_a_frame_of_speech_is_a_frame(generate, tmp_path):
    code, _, err = generate(length=0.05, fps="12.5")
    assert code == 0, err
    with av.open(tmp_path / "out.mp4") as video:
        assert sum(1 for _ in video.decode(video=0)) == 1


def test_a_run_that_is_interrupted_while_decoding_leaves_its_latents_only(generate, tmp_path, monkeypatch):
    from dicetalk.pipeline import DiceTalkPipeline

    decode = DiceTalkPipeline.decode

    def interrupted(*args, **kwargs):
        yield next(decode(*args, **kwargs))
        raise KeyboardInterrupt

    monkeypatch.setattr(DiceTalkPipeline, "decode", interrupted)
    code, _, err = generate(decode_chunk_size=2)
    assert code == 130
    assert "interrupted" in err
    assert os.listdir(tmp_path) == ["out.mp4.resume"]


def test_a_script_is_placed_and_written_as_subtitles(generate, tmp_path):
    script = tmp_path / "script.txt"
    script.write_text("[happy] Hello! [sad 0.7] I am so glad to see you here today.", encoding="utf-8")
    code, printed, problem = generate(script=script, subtitles=True, length=None, fade=0.2, emotion="fear")
    assert code == 0, problem
    assert "untrained" in printed and "Placed 10 words of the script by sound." in printed
    cues = parse_srt((tmp_path / "out.srt").read_text(encoding="utf-8"))
    assert [cue.text for cue in cues] == ["Hello!", "I am so glad to see you here today."]
    with av.open(str(tmp_path / "out.mp4")) as container:
        (stream,) = container.streams.subtitles
        packets = [packet for packet in container.demux(stream) if packet.size]
        packets = [(packet.pts * packet.time_base, bytes(packet)[2:].decode()) for packet in packets]
    shown = [(float(start), text) for start, text in packets if text]
    assert [text for _, text in shown] == [cue.text for cue in cues]
    assert [start for start, _ in shown] == pytest.approx([cue.start for cue in cues], abs=0.002)
    settings = json.loads(read_metadata(tmp_path / "out.mp4")["dicetalk"])
    assert (settings["script"], settings["fade"], settings["subtitles"]) == ("script.txt", 0.2, True)


def test_a_scripts_emotions_come_with_their_words(tiny_checkpoint, tmp_path):
    job = Job(
        portrait=PORTRAIT,
        audio=SPEECH,
        output=tmp_path / "out.mp4",
        checkpoint=str(tiny_checkpoint),
        script="Hello! [sad 0.7] I am so glad to see you here today.",
        emotion="happy",
        device="cpu",
        size=64,
    )
    said = []
    read_inputs(replace(job, script=None, emotion="0s happy; 1000s sad"), said.append)
    assert any("The emotion at 1000 s comes after the end of the clip" in line for line in said)
    inputs = read_inputs(job, lambda line: None)
    words, priors = inputs.words, load_priors(tiny_checkpoint / "emotions")
    assert inputs.emotion.at(0.0) == inputs.emotion.at(words[1].start - 0.41) == priors["happy"]
    assert inputs.emotion.at(words[1].start + 0.01) == priors["sad"].with_intensity(priors["neutral"], 0.7)
    assert job.digest() != replace(job, script=job.script.replace("sad", "fear")).digest()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"subtitles": True}, ["--subtitles", "--script"]),
        ({"script": "[hapy] Hello"}, ["tag 1", "did you mean happy"]),
        ({"script": "nowhere.txt"}, ["nowhere.txt", "cannot be read"]),
        ({"script": "Hello [sad] you", "emotion": "0s happy; 1s sad"}, ["--emotion is a timeline"]),
        ({"script": "Hello " * 90}, ["90 words are too many"]),
        ({"script": "Hello", "fade": 11}, ["--fade", "0 to 10"]),
        ({"script": "Hello", "place_words": "whisper"}, ["untrained"]),
    ],
)
def test_what_is_wrong_with_a_script_is_named(generate, tmp_path, changes, words):
    code, _, problem = generate(**changes)
    assert code == 2 and not (tmp_path / "out.mp4").exists()
    for word in words:
        assert word in problem
