"""Training the embedder: the proof on synthetic clips, recordings, resuming, two processes, and the command."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import warm
from project import ROOT
from safetensors import safe_open
from safetensors.torch import save

from dicetalk import cli
from dicetalk.checkpoints.tiny import emotion_means
from dicetalk.embedder.dataset import CACHE, HeldClips, KeptClips, batch_of, extract, extracted, find_recordings
from dicetalk.embedder.files import read_embedder
from dicetalk.embedder.model import EmbedderConfig
from dicetalk.embedder.processes import together
from dicetalk.embedder.synthetic import SyntheticOptions, synthetic_clips
from dicetalk.emotion.options import NAMES
from dicetalk.errors import InputError

accelerate = pytest.importorskip("accelerate")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from dicetalk.embedder.proof import ABLATIONS, CONFIG, prove  # noqa: E402
from dicetalk.embedder.report import evaluate, identity_probe, raw_features, table, write_report  # noqa: E402
from dicetalk.embedder.training import TrainingOptions, new_embedder, train  # noqa: E402

MEANS = emotion_means()
ANCHORS = torch.tensor(np.stack(list(MEANS.values())))
TINY = EmbedderConfig(tuple(MEANS), width=16, heads=2, layers=1, code=8)
FEW = SyntheticOptions(train_identities=3, test_identities=2, takes=6, tokens=4)
QUICK = TrainingOptions(epochs=2, batch=24, reversal_start=0.0)


def blendshapes(frames, value):
    """MediaPipe's, all of one value but _neutral, the first."""
    return np.concatenate([np.zeros((frames, 1)), np.full((frames, 51), value)], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def accelerator():
    return accelerate.Accelerator(cpu=True)


def fresh(clips, options=QUICK):
    return new_embedder(TINY, ANCHORS, clips, options.seed)


# The proof


def test_proof_on_held_out_identities(accelerator):
    config = EmbedderConfig(tuple(MEANS), **CONFIG)
    synthetic = PROOF_SYNTHETIC
    ((_, embedder, temperature, result, history),) = prove(config, ANCHORS, synthetic, PROOF_TRAINING, accelerator)
    assert result["accuracy"] >= 0.9 and result["macro_f1"] >= 0.9
    # 0.9 × was measured, and 1.4 × with the worst of ten seeds (docs/embedder.md).
    assert result["probe"] <= 1.5 * result["chance"] and result["probe_raw"] >= 5 * result["chance"]
    assert result["chance"] == 1 / synthetic.test_identities
    assert 0.5 < result["accuracy_face"] < result["accuracy"] and result["accuracy_voice"] > 0.5
    assert np.isfinite(history).all() and 0 < temperature < 100
    assert f"{result['accuracy']:.1%}".replace("%", " %") in table({"all": [result]})


PROOF_SYNTHETIC = SyntheticOptions()
PROOF_TRAINING = TrainingOptions()


def test_a_table_of_too_few_clips_for_a_probe_has_dashes():
    result = {"accuracy": 0.5, "macro_f1": 0.5, "probe": None, "probe_raw": None, "chance": 0.5}
    rows = table({"all": [result]}).splitlines()[2:]
    assert rows == ["| all | 50.0 % | 0.500 | - | - | - | - |", "| raw features | - | - | - | - | - | - |"]


def test_a_table_of_several_seeds_has_means_and_ranges():
    first = {"accuracy": 0.5, "macro_f1": 0.25, "accuracy_face": 0.5, "probe": 0.5, "probe_raw": 1.0, "chance": 0.5}
    second = {**first, "accuracy": 1.0, "macro_f1": 0.75, "probe": 0.8}
    rows = table({"all": [first, second]}).splitlines()[2:]
    assert rows == [
        "| all | 75.0 % (50.0 % to 100.0 %) | 0.500 (0.250 to 0.750) | 50.0 % (50.0 % to 50.0 %) | - "
        "| 65.0 % (50.0 % to 80.0 %) | 1.30 (1.00 to 1.60) |",
        "| raw features | - | - | - | - | 100.0 % (100.0 % to 100.0 %) | 2.00 (2.00 to 2.00) |",
    ]


def test_synthetic_clips_are_the_same_for_a_seed_and_share_no_one():
    learning, held_out = synthetic_clips(FEW, tuple(MEANS))
    again, _ = synthetic_clips(FEW, tuple(MEANS))
    other, _ = synthetic_clips(replace(FEW, seed=1), tuple(MEANS))
    assert all(torch.equal(learning[name], again[name]) for name in learning)
    assert not torch.equal(learning["visual"], other["visual"])
    assert not set(learning["actor"].tolist()) & set(held_out["actor"].tolist())
    seen, heard = (learning[f"{name}_mask"].any(1) for name in ("visual", "audio"))
    assert (seen | heard).all() and not seen.all() and not heard.all()
    assert learning["visual"].shape == (3 * 8 * 6, 4, 52) and learning["audio"].shape == (3 * 8 * 6, 4, 384)


def test_probe_finds_identity_where_there_is_one_and_only_there():
    clips = HeldClips(synthetic_clips(replace(FEW, test_identities=4, takes=12), tuple(MEANS))[1])
    noise, who = np.random.default_rng(0).standard_normal((len(clips), 20)), (clips.emotions, clips.actors)
    assert identity_probe(noise, *who) < 0.4
    assert identity_probe(noise + 3 * np.eye(4, 20)[clips.actors], *who) > 0.9
    assert identity_probe(raw_features(clips, 50), *who) > 0.9


def test_no_probe_where_there_is_nothing_to_test_it_with():
    emotions, actors, noise = np.tile(np.arange(8), 3), np.repeat(np.arange(3), 8), np.eye(24)
    assert identity_probe(noise, emotions, actors) is None
    assert identity_probe(noise, emotions // 2, np.zeros(24)) is None
    assert identity_probe(noise, emotions // 2, actors) is not None
    assert identity_probe(noise[:18], emotions[:18] // 2, actors[:18]) is None  # the last actor has two clips


def test_clips_whose_cue_is_hidden_are_not_counted(accelerator):
    clips = synthetic_clips(replace(FEW, test_identities=3, missing=0.3), tuple(MEANS))[1]
    seen = clips["visual_mask"].any(1)
    result = evaluate(fresh(HeldClips(clips)), HeldClips(clips), "visual")
    alone = HeldClips({name: part[seen] for name, part in clips.items()})
    assert 0 < result["clips"] == seen.sum() < len(seen) and result["probe"] is not None
    assert result == evaluate(fresh(HeldClips(clips)), alone, "visual")
    clips["visual_mask"][:] = False
    with pytest.raises(InputError, match="None of the held-out clips has a cue"):
        evaluate(fresh(HeldClips(clips)), HeldClips(clips), "visual")


# Training


def test_training_resumes_to_the_same_result(accelerator, tmp_path):
    clips = HeldClips(synthetic_clips(FEW, tuple(MEANS))[0])
    whole = fresh(clips)
    history = train(whole, clips, QUICK, accelerator)

    class Stop(Exception):
        pass

    def stop(done, total, losses):
        if done == 8:
            raise Stop

    state, resumed = tmp_path / "state.safetensors", fresh(clips)
    with pytest.raises(Stop):
        train(resumed, clips, QUICK, accelerator, state, save_every=7, on_step=stop)
    steps = []

    def resumed_step(done, *_):
        steps.append(done)
        if sys.platform == "linux":  # a file that is mapped, Windows would not let the next state replace
            assert str(state) not in Path("/proc/self/maps").read_text()

    resumed = fresh(clips)
    again = train(
        *(resumed, clips, QUICK, accelerator, state),
        **{"save_every": 7, "resume": True, "on_step": resumed_step},
    )
    assert steps == list(range(8, 13)) and again == history
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    with pytest.raises(InputError, match="another run: rate was 0.003"):
        train(fresh(clips), clips, replace(QUICK, rate=0.1), accelerator, state, resume=True)
    others = HeldClips(synthetic_clips(replace(FEW, seed=5), tuple(MEANS))[0])
    with pytest.raises(InputError, match="another run: features was"):
        train(fresh(clips), others, QUICK, accelerator, state, resume=True)
    state.write_bytes(b"no state")
    with pytest.raises(InputError, match="no state of a training"):
        train(fresh(clips), clips, QUICK, accelerator, state, resume=True)


def test_another_seed_gives_another_result(accelerator):
    clips = HeldClips(synthetic_clips(FEW, tuple(MEANS))[0])
    results = []
    for seed in (0, 0, 1):
        options = replace(QUICK, epochs=1, seed=seed)
        embedder = fresh(clips, options)
        train(embedder, clips, options, accelerator)
        results.append(embedder.residual.weight.detach())
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_too_little_to_train_with(accelerator):
    learning, _ = synthetic_clips(replace(FEW, train_identities=1), tuple(MEANS))
    with pytest.raises(InputError, match="two actors"):
        train(fresh(HeldClips(learning)), HeldClips(learning), QUICK, accelerator)
    clips = HeldClips(synthetic_clips(FEW, tuple(MEANS))[0])
    with pytest.raises(InputError, match="do not fill one batch of 999"):
        train(fresh(clips), clips, replace(QUICK, batch=999), accelerator)


def test_report(accelerator, tmp_path):
    clips = HeldClips(synthetic_clips(FEW, tuple(MEANS))[1])
    result = evaluate(fresh(clips), clips)
    assert np.array(result["confusion"]).sum() == len(clips) and result["actors"] == 2
    write_report(tmp_path, "Title", result, [[1, 1.0, 2.0, 3.0, 4.0], [2, 0.5, 1.0, 1.5, 2.0]], {"clips": "few"})
    text = (tmp_path / "report.md").read_text()
    assert "# Title" in text and "macro F1" in text and "chance" in text and "| clips | few |" in text
    assert json.loads((tmp_path / "report.json").read_text())["result"]["accuracy"] == result["accuracy"]
    for name in ("confusion.png", "losses.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


# Recordings


def record(path, seconds=0.4, fps=25):
    """A video with sound: grey pictures and noise."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(len(str(path)))
    with av.open(str(path), "w") as file:
        if path.suffix == ".mp4":
            video = file.add_stream("mpeg4", rate=fps)
            video.width = video.height = 32
            for _ in range(int(seconds * fps)):
                picture = av.VideoFrame.from_ndarray(random.integers(0, 255, (32, 32, 3), np.uint8), format="rgb24")
                file.mux(video.encode(picture))
            file.mux(video.encode())
        else:
            audio = file.add_stream("pcm_s16le", rate=16000, layout="mono")
            samples = (3000 * random.standard_normal((1, int(seconds * 16000)))).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate = 16000
            file.mux(audio.encode(frame))
            file.mux(audio.encode())


@pytest.fixture
def recordings(tmp_path):
    """Two actors as MEAD has them, and one in plain folders."""
    data = tmp_path / "data"
    for actor in ("M003", "W009"):
        for emotion in ("happy", "neutral"):
            for clip in ("001", "002"):
                record(data / actor / "video" / "front" / emotion / "level_1" / f"{clip}.mp4")
                record(data / actor / "video" / "left_30" / emotion / "level_1" / f"{clip}.mp4")
                record(data / actor / "audio" / emotion / "level_1" / f"{clip}.wav")
                faces = data / actor / "landmarks" / emotion / "level_1" / f"{clip}.npy"
                faces.parent.mkdir(parents=True, exist_ok=True)
                np.save(faces, blendshapes(10, 0.1 * len(emotion)))
    record(data / "someone" / "happy" / "1" / "a.wav")
    record(data / "someone" / "neutral" / "1" / "a.wav")
    return data


def test_folders_are_understood(recordings):
    found = find_recordings(recordings)
    assert len(found) == 10 and str(found[0]) == "M003/happy/level_1/001"
    assert found[0].video.parts[-5] == "video" and found[0].video.parts[-4] == "front"
    assert found[0].audio.suffix == ".wav" and found[0].landmarks.suffix == ".npy"
    assert str(found[-1]) == "someone/neutral/1/a" and found[-1].video is None
    assert all("left_30" in str(each.video) for each in find_recordings(recordings, "left_30")[:8])
    (recordings / "M003" / "glee" / "1").mkdir(parents=True)
    (recordings / "M003" / "glee" / "1" / "x.mp4").touch()
    with pytest.raises(InputError, match="'glee', and must be one of angry"):
        find_recordings(recordings)
    with pytest.raises(InputError, match="holds no recordings"):
        find_recordings(recordings / "M003" / "audio")
    with pytest.raises(InputError, match="is no folder"):
        find_recordings(recordings / "nowhere")


def test_linked_folders_are_followed(recordings, tmp_path):
    (recordings / "someone").rename(tmp_path / "elsewhere")
    (recordings / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (recordings / "M003" / "round").symlink_to(recordings, target_is_directory=True)
    (recordings / CACHE).symlink_to(recordings / "M003", target_is_directory=True)
    found = find_recordings(recordings)
    assert len(found) == 10 and [str(each) for each in found[-2:]] == ["linked/happy/1/a", "linked/neutral/1/a"]


def test_features_are_computed_once(recordings, tiny_checkpoint, tmp_path):
    from dicetalk.checkpoints.whisper import load_whisper_encoder

    encoder = load_whisper_encoder(tiny_checkpoint / "whisper-tiny")
    first = find_recordings(recordings)[0]
    path, new = extract(first, tmp_path / "kept", encoder, "digest")
    assert new and not extract(first, tmp_path / "kept", encoder, "digest")[1]
    assert extract(first, tmp_path / "kept", encoder, "other digest")[1]
    os.utime(first.audio, (1, 1))
    assert extract(first, tmp_path / "kept", encoder, "other digest")[1]
    for content in (path.read_bytes()[:-9], save({"blendshapes": torch.zeros(2, 52)}, {"fps": "25"})):
        path.write_bytes(content)
        with pytest.raises(InputError, match="001.safetensors is there, and holds no features that this command wrote"):
            extract(first, tmp_path / "kept", encoder, "other digest")
        assert path.read_bytes() == content and extracted(first, tmp_path / "kept", "other digest") is None
    path.unlink()
    assert extract(first, tmp_path / "kept", encoder, "other digest")[1]
    clips = KeptClips([path], [0], [0], ["one"])
    visual, visual_mask, audio, audio_mask = clips[0]
    expected = torch.from_numpy(blendshapes(5, 0.5))
    assert torch.allclose(visual, expected, atol=1e-3) and visual_mask.all()
    assert audio.shape == (5, 16) and audio_mask.all()
    assert batch_of(clips, torch.tensor([0, 0]), 3)[0].shape == (2, 3, 52)
    assert extracted(first, tmp_path / "kept", "other digest") == path
    assert extracted(first, tmp_path / "kept", "digest") is None
    first.video.write_bytes(b"damaged")
    with pytest.raises(InputError, match="001.mp4"):
        extract(first, tmp_path / "kept", encoder, "digest")
    assert extracted(first, tmp_path / "kept", "other digest") is None, "made from the video that was there"


# The command


@pytest.fixture
def command(monkeypatch, capsys):
    monkeypatch.setattr(cli, "COMMANDS", ("train-embedder",))

    def run(*arguments):
        code = cli.main(["train-embedder", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


SMALL = ["--epochs", 1, "--width", 16, "--heads", 2, "--layers", 1, "--code", 8, "--device", "cpu"]


def test_command_trains_on_recordings(command, recordings, tiny_checkpoint, tmp_path):
    output = tmp_path / "out" / "embedder.safetensors"
    (recordings / "someone" / "happy" / "1" / "b.mp4").write_bytes(b"damaged")
    (recordings / "someone" / "happy" / "1" / "c.mp4").symlink_to(recordings / "gone.mp4")
    arguments = [recordings, "--checkpoint", tiny_checkpoint, "--output", output, "--held-out", "W009", "--batch", 3]
    code, out, error = command(*arguments, *SMALL)
    assert code == 0, error
    assert "b is left out" in error and "Features of 10 of 12 recordings" in out
    assert "c is left out: " in error and "c.mp4: cannot be read (a link that leads nowhere)" in error
    assert "2 of 10 clips have no face" in out and "0 of 10 clips have no voice" in out and "Held out: W009" in out
    file = read_embedder(output)
    assert file.model.config.audio_features == 16 and len(file.whisper) == 16
    assert file.provenance["clips"] == "6 to train with, 4 held out"
    assert file.provenance["priors"] == "checkpoint tiny" and str(tmp_path) not in str(file.provenance)
    assert file.use == "both"
    report = (output.parent / "embedder-report" / "report.md").read_text()
    assert "| clips, actors | 4, 1 |" in report

    from dicetalk.checkpoints.priors import load_priors
    from dicetalk.checkpoints.whisper import load_whisper_encoder
    from dicetalk.embedder.choice import choose_embedder
    from dicetalk.reading.files import open_clip

    embedder = choose_embedder(output, whisper=load_whisper_encoder(tiny_checkpoint / "whisper-tiny"))
    place = Path("happy") / "level_1"
    clip = open_clip(
        recordings / "M003" / "video" / "front" / place / "001.mp4",
        recordings / "M003" / "landmarks" / place / "001.npy",
    )
    reading = embedder.read(clip, load_priors(tiny_checkpoint / "emotions"))
    assert reading.weights["combined"].sum() == pytest.approx(1) and not any("prior" in note for note in reading.notes)


def test_actors_with_one_clip_per_emotion_are_not_probed(command, recordings, tiny_checkpoint, tmp_path):
    """Eight clips of each held-out actor, and none of them left to test a probe with."""
    for actor in ("one", "two"):
        for emotion in NAMES:
            faces = recordings / actor / emotion / "1" / "a.npy"
            record(faces.with_suffix(".mp4"), seconds=0.2)
            np.save(faces, blendshapes(5, 0.1 * len(emotion)))
    output = tmp_path / "embedder.safetensors"
    arguments = ["--checkpoint", tiny_checkpoint, "--output", output, "--held-out", "one", "two", "--batch", 3]
    code, out, error = command(recordings, *arguments, "--use", "visual", *SMALL)
    assert code == 0 and "2 of 26 clips have no face" in out, error
    report = json.loads((tmp_path / "embedder-report" / "report.json").read_text())
    assert report["result"]["clips"] == 16 and report["result"]["probe"] is report["result"]["probe_raw"] is None
    file = read_embedder(output)
    assert file.use == "visual" and file.provenance["clips"] == "8 to train with, 16 held out"
    assert "reversal 5.0," in file.provenance["training"]


def test_what_is_trained_is_kept_when_its_evaluation_fails(command, recordings, tiny_checkpoint, tmp_path, monkeypatch):
    def fail(*_):
        raise InputError("the features are gone")

    for name in ("evaluate", "fit_temperature"):
        output = tmp_path / f"{name}.safetensors"
        with monkeypatch.context() as patch:
            patch.setattr(f"dicetalk.embedder.report.{name}", fail)
            arguments = [recordings, "--checkpoint", tiny_checkpoint, "--output", output, "--held-out", "W009"]
            code, _, error = command(*arguments, "--batch", 3, *SMALL)
        assert code == 2 and "the features are gone" in error
        assert read_embedder(output).model.config.width == 16


def test_a_cache_that_cannot_be_written_ends_the_command(command, recordings, tiny_checkpoint, tmp_path, monkeypatch):
    """Whichever recording it happens with: the next ones would fare no better."""
    arguments = [recordings, "--checkpoint", tiny_checkpoint, "--extract-only", "--cache", tmp_path / "kept"]

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("dicetalk.embedder.dataset.save", full)
        code, out, error = command(*arguments)
    assert code == 2 and "cannot be written: the disk is full." in error and "name another --cache" in error
    assert "is left out" not in error and "Features of" not in out and not list(tmp_path.glob("kept/**/*.*"))
    first = tmp_path / "kept" / "M003" / "happy" / "level_1" / "001.safetensors"
    first.write_bytes(b"of someone else")
    code, _, error = command(*arguments)
    assert code == 2 and "holds no features that this command wrote" in error and "is left out" not in error


@pytest.mark.parametrize("what", ["recordings", "features"])
def test_processes_that_find_different_things_say_so(command, recordings, tiny_checkpoint, tmp_path, monkeypatch, what):
    """As on machines with folders of their own; the other process is made up."""

    def gather(own):
        differs = isinstance(own[0], str) and ("M003" in own[0]) == (what == "recordings")
        return own + (["[]"] if differs else own)

    monkeypatch.setattr("accelerate.utils.gather_object", gather)
    code, _, error = command(
        recordings, "--checkpoint", tiny_checkpoint, "--output", tmp_path / "x.safetensors", *SMALL
    )
    assert code == 2 and f"The processes do not find the same {what} in {recordings}" in error
    assert not (tmp_path / "x.safetensors").exists()


def test_what_fails_in_another_process_is_told_in_this_one(monkeypatch):
    monkeypatch.setattr("accelerate.utils.gather_object", lambda own: [*own, "the other's disk is full"])
    with pytest.raises(InputError, match="the other's disk is full"):
        together(lambda: 1)


@pytest.mark.parametrize("use, lacking", [("visual", "a face, which --use visual needs"), ("audio", "a voice, which")])
def test_recordings_without_the_cue_that_is_used(command, tiny_checkpoint, tmp_path, use, lacking):
    for actor in ("one", "two"):
        clip = tmp_path / "data" / actor / "happy" / "1" / "a.wav"
        record(clip)
        if use == "audio":
            record(clip.with_suffix(".mp4"))
            np.save(clip.with_suffix(".npy"), blendshapes(10, 0.5))
            clip.unlink()
    arguments = [tmp_path / "data", "--checkpoint", tiny_checkpoint, "--output", tmp_path / "x.safetensors"]
    code, _, error = command(*arguments, "--use", use, *SMALL)
    assert code == 2 and f"None of the 2 clips has {lacking}" in error and "--face-landmarker" in error


def test_cache_among_the_recordings_is_refused(command, recordings, tiny_checkpoint, tmp_path):
    landmarks = recordings / "someone" / "happy" / "1" / "a.safetensors"
    landmarks.write_bytes(save({"blendshapes": torch.zeros(10, 52)}, {"fps": "25"}))
    content = landmarks.read_bytes()
    (tmp_path / "alias").symlink_to(recordings, target_is_directory=True)
    for cache in (recordings, tmp_path / "alias"):
        arguments = [recordings, "--checkpoint", tiny_checkpoint, "--cache", cache, "--extract-only"]
        code, _, error = command(*arguments)
        assert code == 2 and "is the folder of the recordings, where features would pass for landmarks" in error
    assert landmarks.read_bytes() == content and len(list(recordings.rglob("*.safetensors"))) == 1


def test_ablations_are_one_table(command, tmp_path):
    output = tmp_path / "proof.safetensors"
    few = ["--identities", 3, "--test-identities", 2, "--takes", 6, "--batch", 36, "--output", output]
    code, out, error = command("--synthetic", "--ablations", *few, *SMALL)
    assert code == 0, error
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[1:]] == [*ABLATIONS, "raw features"] and len(ABLATIONS) == 5
    assert all(len(row) == 7 and row[5].endswith(" %") and float(row[6]) > 0 for row in rows[1:])
    assert [row[3:5] == ["-", "-"] for row in rows[1:]] == [False, False, False, True, True, True]
    assert read_embedder(output).provenance["clips"].startswith("synthetic")


def test_the_proof_is_repeated_with_other_seeds(command, tmp_path):
    few = ["--synthetic", "--identities", 2, "--test-identities", 2, "--takes", 6, "--batch", 36, *SMALL]
    alone = [command(*few, "--seed", seed)[1].splitlines()[-2].split("|")[2].strip() for seed in (3, 4)]
    output = tmp_path / "proof.safetensors"
    code, out, error = command(*few, "--seed", 3, "--seeds", 2, "--output", output)
    assert code == 0 and "Seeds 3 to 4: the mean, and the range." in out, error
    row = next(line for line in out.splitlines() if line.startswith("| all"))
    low, high = sorted(alone, key=lambda share: float(share.split()[0]))
    assert f"({low} to {high})" in row.split("|")[2] and "seed 3" in read_embedder(output).provenance["training"]


def test_a_training_that_starts_anew_keeps_the_earlier_state(command, tmp_path):
    state = tmp_path / "proof.training.safetensors"
    few = ["--synthetic", "--identities", 2, "--test-identities", 2, "--takes", 3, "--batch", 36]
    arguments = [*few, *SMALL, "--output", tmp_path / "proof.safetensors"]
    assert command(*arguments)[:2][0] == 0
    content = state.read_bytes()
    code, out, error = command(*arguments, "--resume")
    assert code == 0 and "earlier training" not in out and not Path(f"{state}.old").exists(), error
    code, out, error = command(*arguments, "--seed", 1)
    assert code == 0 and f"that one is now {state}.old" in out, error
    assert Path(f"{state}.old").read_bytes() == content != state.read_bytes()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "Give the folder of recordings, or --synthetic"),
        (["there", "--synthetic"], "Give the folder of recordings, or --synthetic"),
        (["there"], "--output is missing"),
        (["there", "--output", "x.pt"], "a name that ends in .safetensors"),
        (["there", "--ablations", "--output", "x.safetensors"], "--ablations goes with --synthetic"),
        (["there", "--seeds", "3", "--output", "x.safetensors"], "--seeds goes with --synthetic"),
        (["--synthetic", "--seeds", "1"], "--seeds 1: give 2 or more"),
        (["--synthetic", "--resume"], "--resume needs --output"),
        (["--synthetic", "--rate", "-1"], "--rate -1: give a positive number"),
        (["--synthetic", "--epochs", "0"], "--epochs 0: give a positive number"),
        (["--synthetic", "--drop", "0.7"], "--drop 0.7: give 0.5 or less"),
        (["--synthetic", "--takes", "1"], "--takes 1: give 2 or more"),
        (["--synthetic", "--width", "30"], "--width 30: give a multiple of"),
        (["--synthetic", "--device", "tpu"], "--device tpu"),
        (["nowhere", "--extract-only", "--checkpoint", "nowhere"], "nowhere does not exist"),
    ],
)
def test_command_refuses(command, arguments, message):
    code, _, error = command(*arguments)
    assert code == 2 and message in error


def test_two_processes_train_as_one_command(tmp_path):
    """Two CPU processes (gloo): one file, one report, and a state to resume from, all written by the first."""
    output = tmp_path / "two.safetensors"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    run = ["-m", "dicetalk", "train-embedder", "--synthetic", "--identities", 3, "--test-identities", 2, "--takes", 3]
    run += [*SMALL, "--batch", 18, "--output", output, "--save-every", 2]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = list(map(str, [*launch, *run]))
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Wrote ") == 1 and done.stdout.count("The report: ") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "two-report",
        "two.safetensors",
        "two.training.safetensors",
    ]
    with safe_open(tmp_path / "two.training.safetensors", "pt") as file:
        state = json.loads(file.metadata()["state"])
    assert state["step"] == 2 and state["run"]["processes"] == 2
    assert read_embedder(output).provenance["processes"] == 2

    # As on two machines whose folders are not shared: the state is in the first one's alone.
    own = "import os, sys\nfrom dicetalk import cli\n"
    own += "sys.exit(cli.main([each.replace('RANK', os.environ['RANK']) for each in sys.argv[1:]]))\n"
    for rank in (0, 1):
        (tmp_path / f"machine{rank}").mkdir()
    os.replace(tmp_path / "two.training.safetensors", tmp_path / "machine0" / "two.training.safetensors")
    run[run.index(output)] = tmp_path / "machineRANK" / "two.safetensors"
    processes = warm.start_group(own, *run[2:], "--resume", environment=environment, cwd=tmp_path)
    errors = [process.communicate()[1] for process in processes]
    assert all(process.returncode for process in processes)
    assert any("The processes do not find the same state" in error for error in errors), errors
