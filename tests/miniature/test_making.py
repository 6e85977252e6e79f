"""The making of the miniature, in sizes that take seconds, and what it writes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from project import ROOT

from dicetalk.checkpoints import finding
from dicetalk.checkpoints.finding import Checkpoint, find_checkpoints
from dicetalk.drawn import Person
from dicetalk.errors import InputError
from dicetalk.miniature import drawn_takes, encoders, make, vae
from dicetalk.miniature.options import Making

accelerate = pytest.importorskip("accelerate")
MAKING = Making(
    takes=8,
    people=4,
    vae_steps=2,
    vae_encoder_steps=1,
    audio_encoder_steps=1,
    image_encoder_steps=1,
    steps=2,
    full_steps=1,
    batch=2,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("miniature")
    stages = []
    make.make(
        folder / "out",
        folder / "work",
        MAKING,
        "no",
        lambda stage, done, total, loss: stages.append((stage, done, total)),
    )
    return folder, stages


@pytest.fixture(scope="module")
def takes(made):
    return list(drawn_takes.load(made[0] / "work" / "takes", MAKING.takes))


def test_every_stage_is_told_to_its_end(made):
    _, stages = made
    ends = {stage: (done, total) for stage, done, total in stages}
    assert list(ends) == [
        *(
            "drawn takes",
            "audio encoder",
            "image encoder",
            "VAE",
            "features",
            "latents",
            "the method",
            "the method, by the full bank",
        )
    ]
    assert all(done == total for done, total in ends.values())


def test_what_it_writes_is_a_whole_checkpoint(made):
    checkpoint = next(iter(find_checkpoints([made[0] / "out"]).values()))
    assert isinstance(checkpoint, Checkpoint)
    assert set(checkpoint.files) == {"unet", "pose_guider", "audio_linear", "emo_model"}
    assert checkpoint.whisper and checkpoint.svd and checkpoint.emotions and checkpoint.miniature
    size = sum(path.stat().st_size for path in checkpoint.root.rglob("*") if path.is_file())
    assert 25e6 < size < 32e6


def test_it_makes_a_video(made, tmp_path):
    from PIL import Image

    from dicetalk.checkpoints.priors import load_priors
    from dicetalk.media.portrait import prepare_portrait
    from dicetalk.pipeline import DiceTalkPipeline

    pipe = DiceTalkPipeline.from_checkpoint(made[0] / "out", torch_dtype=torch.float32)
    take = drawn_takes.choose(1, 1)[0]
    portrait = prepare_portrait(Image.fromarray(take.portrait(64)), take.face_box(64), 64)
    happy = load_priors(made[0] / "out" / "emotions")["happy"]
    out = pipe(portrait, take.sound[: 1280 * 6], happy, num_inference_steps=2)
    assert len(out.frames) == 6 and out.frames[0].size == (64, 64)


def test_making_goes_on_where_it_ended(made, monkeypatch):
    folder, _ = made
    monkeypatch.setattr(drawn_takes.Take, "frames", None)  # nothing is drawn again
    restarts, restart = [], make.restart_silent_units
    monkeypatch.setattr(make, "restart_silent_units", lambda *each, **more: restarts.append(restart(*each, **more)))
    histories = make.make(folder / "again", folder / "work", MAKING, "no")
    assert [[step for step, *_ in history] for history in histories] == [[1, 2], [1]]
    assert len(restarts) == 1, "before the second stage"
    first, again = (torch.load(folder / name / "DICE-Talk" / "unet.pth") for name in ("out", "again"))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_work_on_another_miniature_is_not_taken(made, tmp_path):
    with pytest.raises(InputError, match="people was 4, and is 5.*another work folder"):
        make.make(tmp_path / "out", made[0] / "work", replace(MAKING, people=5), "no")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "mine.txt").touch()
    with pytest.raises(InputError, match="holds other things"):
        make.make(tmp_path / "out", tmp_path / "work", MAKING, "no")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("mixed", "precision"), [("no", torch.float32), ("bf16", torch.bfloat16)])
def test_the_vae_trains_in_the_precision_that_was_asked_for(tmp_path, monkeypatch, mixed, precision):
    class Reached(Exception):
        pass

    def train_vae(*args, precision, **more):
        raise Reached(precision)

    monkeypatch.setattr(make, "train_vae", train_vae)
    with pytest.raises(Reached) as reached:
        make.make(tmp_path / "out", tmp_path / "work", replace(MAKING, takes=2, people=2), mixed)
    assert reached.value.args == (precision,)
    assert not (tmp_path / "out" / "MINIATURE").exists(), "what has this file is whole"


def test_each_person_shows_several_emotions_and_none_of_the_held_out():
    chosen = drawn_takes.choose(64, 16)
    shown = {}
    for take in chosen:
        assert take.person.number % 4 != 3
        shown.setdefault(take.person.number, set()).add(take.emotion)
    assert len(shown) == 16 and all(len(each) == 4 for each in shown.values())
    assert len({take.emotion for take in chosen}) == 8


def test_scaled_latents_have_unit_spread_and_the_pictures_stay(takes):
    network = vae.new_vae()
    picture = torch.from_numpy(takes[0]["frames"][:1]).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        before = network.decode(network.encode(picture).latent_dist.mode(), num_frames=1).sample
        vae.scale_latents(network, takes)
        latent = network.encode(picture).latent_dist.mode()
        after = network.decode(latent, num_frames=1).sample
    network.requires_grad_(False)
    pictures = torch.stack([torch.from_numpy(take["frames"][len(take["frames"]) // 2]) for take in takes])
    spread = (
        network.encode(pictures.permute(0, 3, 1, 2) / 127.5 - 1).latent_dist.mode().std()
        * network.config.scaling_factor
    )
    assert abs(float(spread) - 1) < 1e-3
    assert float((after - before).abs().max()) < 1e-4


def test_convolutions_over_frames_see_one_frame_until_they_learn():
    kernels = [each.weight for each in vae.new_vae().modules() if isinstance(each, torch.nn.Conv3d)]
    kernels = [each for each in kernels if each.shape[2] == 3]
    assert len(kernels) > 10
    assert all(not each[:, :, ::2].any() and each[:, :, 1].any() for each in kernels)


def test_its_gradient_does_not_depend_on_the_number_of_threads(takes):
    """PyTorch's 3D convolutions had wrong ones now and then in bfloat16, and learning was slow and blurred."""
    pictures = torch.from_numpy(takes[0]["frames"][:4]).permute(0, 3, 1, 2) / 127.5 - 1
    network, found = vae.new_vae(), []
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 2, 2):
            torch.set_num_threads(number)
            network.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                out = network.decode(network.encode(pictures).latent_dist.mode(), num_frames=1).sample
            (out.float() - pictures).square().mean().backward()
            found.append({name: each.grad for name, each in network.named_parameters() if each.grad is not None})
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        for name, gradient in found[0].items():
            assert float((other[name] - gradient).norm()) < 0.02 * float(gradient.norm()) + 1e-6, name


def test_the_autoencoders_loss_falls(takes):
    losses = []
    network = vae.new_vae()
    vae.train_vae(network, takes, 16, 16, rate=1e-3, on_step=lambda done, total, loss: losses.append(loss))
    assert np.mean(losses[-4:]) < np.mean(losses[:4])


def test_a_batch_that_cannot_be_cut_into_clips(takes):
    with pytest.raises(InputError, match="multiple of 4"):
        vae.train_vae(vae.new_vae(), takes, 1, 1, batch=6)


def test_the_audio_encoder_follows_the_lips(takes):
    losses = []
    encoders.train_audio_encoder(takes, 12, 5e-3, on_step=lambda done, total, loss: losses.append(loss))
    assert np.mean(losses[-3:]) < 0.5 * losses[0]


def test_the_image_encoder_distinguishes_people():
    takes = [{"frames": draw(number)[None]} for number in range(6)]
    losses = []
    encoders.train_image_encoder(
        takes, list(range(6)), 15, 6, 2e-3, on_step=lambda done, total, loss: losses.append(loss)
    )
    assert losses[-1] < 0.5 * losses[0]


def draw(number):
    from dicetalk.drawn.face import draw

    return np.asarray(draw(Person.of(number), size=64))


def test_generate_says_what_a_miniature_knows_and_its_size(made, tmp_path, capsys):
    from dicetalk.cli import main
    from dicetalk.drawn.files import write_take

    take = drawn_takes.choose(1, 1)[0]
    write_take(take, tmp_path / "her.mp4", 128)
    box = ",".join(f"{value:g}" for value in take.face_box(128))
    arguments = ["--portrait", str(tmp_path / "her.png"), "--audio", str(tmp_path / "her.mp4"), "--face", box]
    arguments += ["--checkpoint", str(made[0] / "out"), "--steps", "1", "--fps", "12.5", "--length", "0.4"]
    assert main(["generate", *arguments, "--size", "128", "--output", str(tmp_path / "a.mp4")]) == 0
    out = capsys.readouterr().out
    assert "knows drawn people only" in out and "give --size 64" in out
    assert main(["generate", *arguments, "--size", "64", "--output", str(tmp_path / "b.mp4")]) == 0
    out = capsys.readouterr().out
    assert "knows drawn people only" in out and "give --size" not in out


def test_the_command_refuses_a_folder_with_other_weights(tmp_path, capsys):
    from dicetalk.cli import main

    (tmp_path / "DICE-Talk").mkdir()
    assert main(["miniature", "--output", str(tmp_path)]) == 2
    assert "holds weights that are not of a miniature" in capsys.readouterr().err
    assert main(["miniature", "--output", str(tmp_path / "new"), "--takes", "0"]) == 2
    assert "--takes 0" in capsys.readouterr().err


def test_the_miniature_draws_what_it_drew_when_it_was_made():
    import make_miniature_pictures as pictures

    with Image.open(pictures.EXPECTED) as file:
        wanted = np.asarray(file.convert("RGB"), float)
    assert np.abs(pictures.expected() - wanted).mean() < 2


def test_what_comes_with_the_source_is_small_and_says_what_it_is():
    folder = ROOT / "miniature"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 32 * 2**20
    assert "drawn people alone" in (folder / "MINIATURE").read_text(encoding="utf-8")
    checkpoint = finding.resolve_checkpoint(folder)
    assert checkpoint.miniature and all(checkpoint.file(part) for part in finding.PARTS)
    assert all(checkpoint.folder(kind).is_dir() for kind in ("whisper", "svd", "emotions"))
