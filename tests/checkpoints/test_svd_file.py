"""svd_xt.safetensors, as ComfyUI has it, on the command line: its names and sizes, with random or no numbers."""

import os

import comfy_files
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder

from dicetalk.checkpoints import svd_files
from dicetalk.checkpoints.download import missing_files
from dicetalk.checkpoints.finding import resolve_checkpoint
from dicetalk.checkpoints.svd import TOWER, VAE, load_svd_part
from dicetalk.checkpoints.svd_xt import read_svd_part, write_svd_parts
from dicetalk.cli import main
from dicetalk.errors import InputError

PREFIX = "conditioner.embedders.0.open_clip.model.visual."


def write_svd_xt(path, width=80, layers=2, leave_out=()):
    """A file with the names of svd_xt.safetensors: the whole VAE, empty, and a narrow tower with random numbers.

    Returns the tower's arrays by transformers' names.
    """
    vae = comfy_files._encoder() | comfy_files._decoder()
    shapes = {f"first_stage_model.{name}": shape for name, shape in vae.items()}
    shapes |= {f"model.diffusion_model.{name}": shape for name, shape in comfy_files._marks_of_svd_unet().items()}
    tower, _ = comfy_files._clip_vision(width, layers)
    arrays, written = {name: comfy_files._random(name, shape) for name, shape in tower.items()}, {}
    for name, parts in comfy_files._open_clip_names(tower).items():
        array = np.concatenate([arrays[part] for part in parts])
        written[PREFIX + name] = array.T if name == "proj" else array
    shapes |= {name: array.shape for name, array in written.items()}
    for name in leave_out:
        shapes.pop(name), written.pop(name, None)
    comfy_files._write(path, written, shapes)
    return arrays


@pytest.fixture(scope="module")
def svd_xt(tmp_path_factory):
    path = tmp_path_factory.mktemp("svd") / "svd_xt.safetensors"
    return path, write_svd_xt(path)


def test_the_vae_has_the_names_and_sizes_of_diffusers(svd_xt):
    config, tensors = read_svd_part(svd_xt[0], "vae")
    with torch.device("meta"):
        wanted = AutoencoderKLTemporalDecoder.from_config(config).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        name: tuple(tensor.shape) for name, tensor in wanted.items()
    }
    assert config["block_out_channels"] == [128, 256, 512, 512] and config["layers_per_block"] == 2


def test_the_tower_has_the_numbers_under_the_names_of_transformers(svd_xt):
    path, arrays = svd_xt
    config, tensors = read_svd_part(path, "image_encoder")
    assert set(tensors) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(tensors[name].numpy(), array.astype(np.float16), err_msg=name)
    assert (config["hidden_size"], config["num_hidden_layers"], config["image_size"]) == (80, 2, 224)
    tower = load_svd_part(path, TOWER, torch.float32)
    assert tower(torch.zeros(1, 3, 224, 224)).image_embeds.shape == (1, 1024)


def test_parts_are_cut_out_as_the_hub_has_them(svd_xt, tmp_path):
    written = []
    write_svd_parts(svd_xt[0], tmp_path, on_file=lambda path, new: written.append((path.name, new)))
    assert written == [("diffusion_pytorch_model.fp16.safetensors", True), ("model.fp16.safetensors", True)]
    tower = load_svd_part(tmp_path, TOWER, torch.float32).state_dict()
    for name, array in svd_xt[1].items():
        np.testing.assert_array_equal(tower[name].numpy(), array.astype(np.float16).astype(np.float32))
    vae = load_svd_part(tmp_path, VAE, torch.float32)
    assert vae.config.scaling_factor == 0.18215 and vae.config.force_upcast
    write_svd_parts(svd_xt[0], tmp_path, on_file=lambda path, new: written.append((path.name, new)))
    assert [new for _, new in written] == [True, True, False, False]


@pytest.mark.parametrize(
    ("left_out", "part", "words"),
    [
        ("first_stage_model.decoder.conv_out.time_mix_conv.weight", "vae", "temporal decoder"),
        (PREFIX + "ln_pre.weight", "image_encoder", "CLIP vision tower"),
    ],
)
def test_another_models_file_is_named(tmp_path, left_out, part, words):
    write_svd_xt(tmp_path / "svd_xt.safetensors", leave_out=[left_out])
    with pytest.raises(InputError, match=f"svd_xt.safetensors, .*{words}.*9.6 GB.*an account"):
        read_svd_part(tmp_path / "svd_xt.safetensors", part)


@pytest.mark.parametrize("name", svd_files.SVD_FILES)
def test_it_is_found_where_comfyui_has_it(tmp_path, monkeypatch, name):
    models = tmp_path / "ComfyUI" / "models"
    for part in ("unet", "pose_guider", "audio_linear", "emo_model"):
        path = models / "dicetalk" / "DICE-Talk" / f"{part}.pth"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "ComfyUI"))
    monkeypatch.setenv("HOME", str(tmp_path))
    checkpoint = resolve_checkpoint()
    with pytest.raises(InputError, match=r"svd_xt.safetensors or svd_xt_1_1.safetensors.*1.5 GB.*account"):
        checkpoint.folder("svd")
    assert "svd" in missing_files(models / "dicetalk")
    (models / "checkpoints").mkdir()
    (models / "checkpoints" / name).write_bytes(b"x")
    assert resolve_checkpoint().folder("svd") == models / "checkpoints" / name
    assert "svd" not in missing_files(models / "dicetalk")


def test_download_looks_on_the_disk_first(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "ComfyUI"))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "svd_xt_1_1.safetensors").write_bytes(b"x")
    assert main(["download", "--only", "svd", "--output", str(tmp_path / "set")]) == 0
    said = capsys.readouterr().out
    assert f"{tmp_path / 'svd_xt_1_1.safetensors'} is there" in said and "Nothing is missing" in said
    assert not os.path.exists(tmp_path / "set")
