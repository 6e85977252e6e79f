"""`prepare` and `train` as commands: from recordings to a checkpoint that other commands take."""

import json

import numpy as np
import pytest
import torch
from clips import voice, write_video
from PIL import Image
from prepared import CONFIG
from safetensors import safe_open

from dicetalk import cli
from dicetalk.errors import InputError
from dicetalk.training.dataset import PreparedClips, read_records, shards
from dicetalk.training.recordings import find_sources, read_manifest

pytest.importorskip("accelerate")
pytest.importorskip("matplotlib")


@pytest.fixture
def command(monkeypatch, capsys):
    monkeypatch.setattr(cli, "COMMANDS", ("prepare", "train", "convert"))

    def run(*arguments):
        code = cli.main(list(map(str, arguments)))
        return code, *capsys.readouterr()

    return run


def face(shade):
    """A picture of 64 × 64 with a face-like square at 16 to 48."""
    pixels = np.full((64, 64, 3), 90, np.uint8)
    pixels[16:48, 16:48] = shade
    return Image.fromarray(pixels)


@pytest.fixture
def manifest(tmp_path):
    """Two people, two emotions, a folder of pictures with its own sound, and one file that is damaged."""
    sound = voice(0.9)
    rows = []
    for number, (person, emotion) in enumerate([("ann", "happy"), ("ann", "sad"), ("bob", "happy"), ("bob", "sad")]):
        name = f"{person}-{emotion}.mp4"
        write_video(tmp_path / name, sound, seconds=0.8, fps=25, picture=face(100 + 40 * number))
        rows.append({"video": name, "emotion": emotion, "person": person, "level": number or ""})
        rows[-1]["face_box"] = [16, 16, 48, 48]
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(20):
        face(100 + 5 * number).save(pictures / f"{number:03}.png")
    faces = np.tile(np.arange(20, dtype=np.float32)[:, None] / 20, (1, 52))
    faces[:, 0] = 0  # _neutral
    np.save(tmp_path / "faces.npy", faces)
    more = {
        "video": "pictures",
        "audio": "ann-sad.mp4",
        "emotion": "neutral",
        "person": "cid",
        "landmarks": "faces.npy",
    }
    rows.append({**more, "face_box": [16, 16, 48, 48], "split": "test"})
    (tmp_path / "damaged.mp4").write_bytes(b"damaged")
    rows.append({"video": "damaged.mp4", "emotion": "sad", "person": "cid"})
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


SMALL = ["--size", 64, "--least-frames", 5, "--per-shard", 2, "--device", "cpu"]


def test_recordings_become_a_checkpoint(command, manifest, tiny_checkpoint, tmp_path):
    data = tmp_path / "prepared"
    arguments = ["prepare", manifest, "--output", data, "--checkpoint", tiny_checkpoint, *SMALL]
    code, out, error = command(*arguments)
    assert code == 0, error
    assert "5 prepared, 0 there, 1 left out" in out and "damaged.mp4 is left out: " in error
    files = shards(data)
    assert len(files) == 3 and [len(read_records(path)) for path in files] == [2, 2, 1]
    before = [path.read_bytes() for path in files]
    assert "0 prepared, 5 there, 1 left out" in command(*arguments)[1]
    assert [path.read_bytes() for path in shards(data)] == before
    files[1].unlink()
    assert "2 prepared, 3 there, 1 left out" in command(*arguments)[1]

    clips = PreparedClips(data, 5)
    assert [record.name for record in clips.records] == [
        f"{p}-{e}.mp4" for p in ("ann", "bob") for e in ("happy", "sad")
    ]
    assert [record.level for record in clips.records] == [0, 1, 2, 3]
    part = clips.read(0, 1, 5, 0)
    assert part["latents"].shape == (5, 4, 8, 8) and part["audio"].shape == (5, 10, 5, 16)
    assert part["clip"].shape == (1024,) and 0.25 < part["face_mask"].mean() < 0.32
    [test] = PreparedClips(data, 5, "test").records
    assert (test.name, test.emotion, test.frames) == ("pictures", "neutral", 10)
    [shard] = [path for path in shards(data) if "pictures" in [record.name for record in read_records(path)]]
    with safe_open(shard, "pt") as file:
        place = [record.name for record in read_records(shard)].index("pictures")
        blendshapes = file.get_tensor(f"{place}.blendshapes")
    # Pictures come 25 a second, frames 12.5.
    assert torch.allclose(blendshapes[:, 1].float(), torch.arange(10) / 10, atol=1e-3)

    output = tmp_path / "trained"
    arguments = ["train", data, "--checkpoint", tiny_checkpoint, "--output", output, "--device", "cpu", "--frames", 4]
    arguments += ["--steps", 2, "--batch", 2, "--rate", 1e-3]
    code, out, error = command(*arguments)
    assert code == 0, error
    assert "4 clips" in out and "unet.pth" in out
    report = (output / "report" / "report.md").read_text()
    assert "| denoising |" in report and (output / "report" / "losses.png").read_bytes().startswith(b"\x89PNG")
    log = [json.loads(line) for line in (output / "report" / "losses.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [1, 2] and all(np.isfinite(list(row.values())).all() for row in log)
    code, out, error = command("convert", output, "--output", tmp_path / "converted")
    assert code == 0 and (tmp_path / "converted" / "DICE-Talk" / "unet.safetensors").is_file(), error

    from dicetalk.media.portrait import prepare_portrait
    from dicetalk.pipeline import DiceTalkPipeline

    pipeline = DiceTalkPipeline.from_checkpoint(output)
    pipeline.set_progress_bar_config(disable=True)
    from dicetalk.checkpoints import load_prior

    emotion = load_prior(output / "emotions" / "happy.npy")
    portrait = prepare_portrait(face(200), (16, 16, 48, 48), 64)
    frames = pipeline(portrait, voice(0.3), emotion, num_inference_steps=1, output_type="np").frames
    assert frames.shape == (4, 64, 64, 3) and np.isfinite(frames).all()

    code, out, error = command(*arguments, "--resume", "--steps", 3)
    assert code == 0, error
    log = (output / "report" / "losses.jsonl").read_text().splitlines()
    assert len(log) == 3
    code, out, _ = command(*arguments[:3], tiny_checkpoint, "--output", tiny_checkpoint, *arguments[6:])
    assert code == 2


def test_training_from_nothing_with_any_sizes(command, tiny_checkpoint, tmp_path):
    from prepared import write_clips

    config = tmp_path / "small.json"
    config.write_text(json.dumps(CONFIG))
    data, output = write_clips(tmp_path / "data"), tmp_path / "out"
    arguments = ["train", data, "--checkpoint", tiny_checkpoint, "--output", output, "--new", config, "--device", "cpu"]
    arguments += ["--frames", 4, "--trains", "all", "--steps", 2, "--reference", 0.5]
    code, out, error = command(*arguments)
    assert code == 0, error
    assert (output / "DICE-Talk" / "unet.pth").stat().st_size < 5_000_000
    code, _, error = command(*arguments, "--drop-all", 2)
    assert code == 2 and error.count("\n") == 1 and "--drop-all 2: give a share" in error
    config.write_text("{")
    code, _, error = command(*arguments)
    assert code == 2 and error.strip().count("\n") == 0 and "cannot be read as a configuration" in error


def test_features_of_other_sizes_are_refused(command, tiny_checkpoint, tmp_path):
    from prepared import write_clips

    data = write_clips(tmp_path / "data")
    arguments = ["train", data, "--checkpoint", tiny_checkpoint, "--output", tmp_path / "out", "--frames", 4]
    code, _, error = command(*arguments, "--device", "cpu")
    assert code == 2 and "holds image embeddings of 8 numbers, and the UNet takes 1024" in error


# Labels


def test_a_manifest_as_csv(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text(
        'video,emotion,level,person,face_box,split\na.mp4,sad,3,p,"1,2,3,4",\nb.mp4,happy,,q,,val\nc.mp4,,,q,,\n'
    )
    first, second, third = read_manifest(path)
    assert (third.emotion, third.level) == ("", 0)
    assert (first.video, first.level, first.face_box, first.split) == (tmp_path / "a.mp4", 3, (1, 2, 3, 4), "train")
    assert (second.name, second.level, second.face_box, second.split) == ("b.mp4", 0, None, "val")


@pytest.mark.parametrize(
    "text, told",
    [
        ("", "lists no recordings"),
        ("video,emotion,person\na.mp4,glee,p\n", "row 1: the emotion is 'glee'"),
        ("video,emotion,person\na.mp4,sad,\n", "row 1: person is missing"),
        ("video,emotion,person,level\na.mp4,sad,p,9\n", "row 1: the level is '9'"),
        ("video,emotion,person,mood\na.mp4,sad,p,x\n", "there is no column 'mood'"),
        ("video,emotion,person,face_box\na.mp4,sad,p,here\n", "face_box must be"),
        ("video,emotion,person\na.mp4,sad,p\na.mp4,sad,p\n", "two recordings are named a.mp4"),
    ],
)
def test_a_manifest_that_cannot_be_used(tmp_path, text, told):
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=told):
        read_manifest(path)


def test_names_of_data_sets(tmp_path):
    def touch(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    touch("r/Actor_12/01-01-06-02-02-01-12.mp4", "r/Actor_12/01-01-02-01-02-01-12.mp4", "r/02-01-06-02-02-01-12.mp4")
    [found] = find_sources(tmp_path / "r", "ravdess")
    assert (found.emotion, found.level, found.person) == ("fear", 3, "Actor_12")
    touch("c/1001_IEO_ANG_HI.flv", "c/1002_IEO_NEU_XX.flv", "c/1001_IEO_ANG.flv", "c/notes.txt")
    found = [(each.emotion, each.level, each.person) for each in find_sources(tmp_path / "c", "crema-d")]
    assert found == [("angry", 3, "1001"), ("neutral", 0, "1002")]
    touch("m/M003/video/front/sad/level_2/001.mp4", "m/M003/audio/sad/level_2/001.m4a")
    [found] = find_sources(tmp_path / "m", "mead")
    assert (found.emotion, found.level, found.person, found.audio.name) == ("sad", 2, "M003", "001.m4a")
    for layout in ("mead", "ravdess"):
        with pytest.raises(InputError, match="holds no recordings"):
            find_sources(tmp_path / "c", layout)
