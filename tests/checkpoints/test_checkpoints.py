"""Finding checkpoints, and turning files of weights into modules or one clear error."""

import json
import os
import pickle
import shutil
import zipfile

import pytest
import torch
from project import ROOT, STATE_DICTS
from safetensors.torch import save_file
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dicetalk.checkpoints import finding
from dicetalk.checkpoints.finding import PART_TITLES, PARTS, default_roots, find_checkpoints, resolve_checkpoint
from dicetalk.checkpoints.loading import build_part, fitted_part, load_part, read_state_dict
from dicetalk.checkpoints.tensors import read_tensors
from dicetalk.errors import InputError

PUBLISHED = {
    part: {name: tuple(shape) for name, shape in shapes.items()}
    for part, shapes in json.loads(STATE_DICTS.read_text()).items()
}


def write_sparse_pth(path, shapes):
    """A full-size .pth whose tensors are holes in the file."""
    with FakeTensorMode():
        tensors = {name: torch.empty(shape) for name, shape in shapes.items()}
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save(tensors, path)


def write_sparse_safetensors(path, shapes, item_size=2, dtype="F16"):
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + item_size * torch.Size(shape).numel()
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


# ---------------------------------------------------------------- the published parts, at full size


@pytest.mark.parametrize("part", PARTS)
def test_published_part_loads_with_nothing_missing_and_nothing_left_over(part, tmp_path):
    shapes = PUBLISHED[part]
    write_sparse_pth(tmp_path / f"{part}.pth", shapes)
    module = load_part(part, tmp_path / f"{part}.pth")
    state_dict = module.state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state_dict.items()} == shapes
    assert all(tensor.device.type == "cpu" and tensor.dtype is torch.float32 for tensor in state_dict.values())
    assert not any(buffer.is_meta for buffer in module.buffers())
    assert not module.training and not any(parameter.requires_grad for parameter in module.parameters())
    assert next(module.parameters()).sum() == 0, "the weights can be computed with"

    write_sparse_safetensors(tmp_path / f"{part}.safetensors", shapes)
    tensors = read_state_dict(tmp_path / f"{part}.safetensors", part)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == shapes
    assert all(tensor.dtype is torch.float16 for tensor in tensors.values())


def test_the_unet_has_the_published_number_of_tensors_and_parameters():
    assert len(PUBLISHED["unet"]) == 1556
    assert sum(torch.Size(shape).numel() for shape in PUBLISHED["unet"].values()) == 1_626_859_242


@pytest.mark.parametrize("part", PARTS)
def test_tiny_part_is_built_from_its_shapes_and_has_the_files_weights(part, tiny_checkpoint):
    path = resolve_checkpoint(tiny_checkpoint).file(part)
    module = load_part(part, path)
    in_file = torch.load(path, weights_only=True)
    assert module.state_dict().keys() == in_file.keys()
    assert all(torch.equal(tensor, in_file[name]) for name, tensor in module.state_dict().items())
    half = load_part(part, path, torch.float16)
    assert all(parameter.dtype is torch.float16 for parameter in half.parameters())
    on_meta = build_part(part, in_file)
    assert all(parameter.is_meta for parameter in on_meta.parameters() if parameter.ndim > 1)


@pytest.mark.parametrize("part", ["unet", "pose_guider"])
def test_configuration_is_read_off_the_shapes(part):
    module = build_part(part, {name: torch.empty(shape, device="meta") for name, shape in PUBLISHED[part].items()})
    if part == "unet":
        assert tuple(module.config.block_out_channels) == (320, 640, 1280, 1280)
        assert tuple(module.config.num_attention_heads) == (5, 10, 20, 20)
        assert module.config.layers_per_block == 2
    else:
        assert module.conv_in.out_channels == 16 and module.conv_out.out_channels == 320


# ---------------------------------------------------------------- what a file may look like


@pytest.fixture
def tensors(tiny_checkpoint):
    return torch.load(tiny_checkpoint / "DICE-Talk" / "pose_guider.pth", weights_only=True)


@pytest.mark.parametrize("prefix", ["", "module.", "diffusion_model.", "model.diffusion_model."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_wrappings_that_other_programs_add(tensors, tmp_path, prefix, wrapped):
    named = {prefix + name: tensor for name, tensor in tensors.items()}
    torch.save({"state_dict": named, "epoch": 3} if wrapped else named, tmp_path / "file.pth")
    read = read_state_dict(tmp_path / "file.pth", "pose_guider")
    assert read.keys() == tensors.keys() and all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_the_content_tells_the_format_not_the_name(tensors, tmp_path):
    save_file(tensors, tmp_path / "weights.pth")
    torch.save(tensors, tmp_path / "weights.safetensors")
    for name in ("weights.pth", "weights.safetensors"):
        load_part("pose_guider", tmp_path / name)


def test_parameters_are_accepted(tensors, tmp_path):
    torch.save({name: torch.nn.Parameter(tensor) for name, tensor in tensors.items()}, tmp_path / "file.pth")
    assert not any(tensor.requires_grad for tensor in read_state_dict(tmp_path / "file.pth", "pose_guider").values())


def plain_svd(unet):
    return {name: tensor for name, tensor in unet.items() if ".processor." not in name}


def lora(unet):
    return {
        f"{name[:-7]}.lora_{side}.weight": torch.zeros(4, 4)
        for name in unet
        if name.endswith("to_q.weight")
        for side in ("A", "B")
    }


WRONG_WEIGHTS = {
    "LoRA": (
        "unet",
        lora,
        "is a LoRA, which a LoRA loader adds to the model: .*conv_in.weight.* missing; .*lora_A.* unexpected",
    ),
    "kohya LoRA": ("unet", lambda unet: {"lora_unet_mid.lora_down.weight": torch.zeros(4, 4)}, "is a LoRA"),
    "plain SVD": (
        "unet",
        plain_svd,
        "plain Stable Video Diffusion UNet.*: .*processor.to_k_ip.0.weight.* and .* more missing",
    ),
    "whole SVD checkpoint": (
        "unet",
        lambda unet: {
            "model.diffusion_model.x": torch.zeros(1),
            "first_stage_model.encoder.conv_in.weight": torch.zeros(1),
        },
        "whole Stable .* checkpoint, which belongs into models/checkpoints",
    ),
    "Stability's names": (
        "unet",
        lambda unet: {"diffusion_model.input_blocks.0.0.weight": torch.zeros(1)},
        "Stability",
    ),
    "image UNet": ("unet", lambda unet: {"down_blocks.0.resnets.0.conv1.weight": torch.zeros(1)}, "another model"),
    "VAE": ("unet", lambda unet: {"encoder.down_blocks.0.resnets.0.conv1.weight": torch.zeros(1)}, "is a VAE"),
    "CLIP": ("unet", lambda unet: {"vision_model.embeddings.class_embedding": torch.zeros(1)}, "CLIP vision"),
    "Whisper": ("audio_linear", lambda unet: {"model.encoder.layers.0.fc1.weight": torch.zeros(1)}, "Whisper"),
    "something else": ("unet", lambda unet: {"weight": torch.zeros(1)}, "does not fit: .* missing; weight unexpected"),
    "missing": (
        "unet",
        lambda unet: {name: tensor for name, tensor in unet.items() if name != "conv_norm_out.bias"},
        "does not fit: conv_norm_out.bias missing",
    ),
    "unexpected": (
        "unet",
        lambda unet: {**unet, "controls.weight": torch.zeros(1)},
        "does not fit: controls.weight unexpected",
    ),
    "misshapen": (
        "unet",
        lambda unet: {**unet, "conv_norm_out.bias": torch.zeros(7)},
        r"does not fit: conv_norm_out.bias \(7 instead of 32\) misshapen",
    ),
    "misshapen where it tells a size": (
        "unet",
        lambda unet: {**unet, "conv_in.weight": torch.zeros(7)},
        r"does not fit: .*conv_in.weight \(7 instead of 320×8×3×3\)",
    ),
    "whole numbers": (
        "unet",
        lambda unet: {**unet, "conv_norm_out.bias": torch.zeros(32, dtype=torch.int8)},
        "does not fit: conv_norm_out.bias not of floating point",
    ),
    "empty dictionary": ("unet", lambda unet: {}, "holds no tensors"),
    "too many": (
        "unet",
        lambda unet: {f"{i}": torch.zeros(1).storage_offset() or torch.ones(1) for i in range(5001)},
        "5001 tensors",
    ),
}


@pytest.mark.parametrize("case", WRONG_WEIGHTS)
def test_wrong_weights_are_one_clear_error(case, tiny_checkpoint, tmp_path):
    part, change, message = WRONG_WEIGHTS[case]
    unet = torch.load(tiny_checkpoint / "DICE-Talk" / "unet.pth", weights_only=True)
    path = tmp_path / f"{part}.pth"
    torch.save(change(unet), path)
    assert_refused(part, path, message)


def assert_refused(part, path, message):
    with pytest.raises(InputError, match=message) as error:
        load_part(part, path)
    text = str(error.value)
    assert text.startswith(f"{path}, taken for {PART_TITLES[part]}, ")
    assert "python -m dicetalk download" in text and "\n" not in text and len(text) < 1200


@pytest.mark.parametrize("part, name", [("unet", "conv_in.weight"), ("emo_model", "emo_linear.proj1.weight")])
def test_a_missing_tensor_that_tells_a_size_is_named(part, name):
    shapes = {other: shape for other, shape in PUBLISHED[part].items() if other != name}
    state_dict = {other: torch.empty(shape, device="meta") for other, shape in shapes.items()}
    with pytest.raises(InputError, match=f"does not fit: {name} missing. Put"):
        fitted_part(part, state_dict, "file.pth")


@pytest.mark.parametrize("own", PARTS)
@pytest.mark.parametrize("part", PARTS)
def test_another_parts_file_is_recognized(own, part, tiny_checkpoint):
    path = tiny_checkpoint / "DICE-Talk" / f"{own}.pth"
    if own == part:
        load_part(part, path)
    else:
        assert_refused(part, path, f"is {PART_TITLES[own]} \\({own}.pth\\): ")


class Runs:
    """Pickles as a call that leaves a trace."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


def zip_with(path, *, pickled=None, compress=zipfile.ZIP_STORED, data=b""):
    with zipfile.ZipFile(path, "w", compress) as archive:
        if pickled is not None:
            archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/data/0", data)
        archive.writestr("archive/version", "3\n")


def overstated(path):
    torch.save({"a": torch.zeros(1).expand(10**12)}, path)


def same_data_many_times(path):
    shared = torch.zeros(10_000)
    torch.save({f"{i}": shared for i in range(100)}, path)


WRONG_FILES = {
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "web page": (lambda path: path.write_bytes(b"\n<!DOCTYPE html>\n<html>"), "web page"),
    "web page without doctype": (lambda path: path.write_bytes(b"<HTML><body>Sign in"), "web page"),
    "git-lfs pointer": (
        lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 6507934801\n"),
        "git-lfs pointer",
    ),
    "text": (lambda path: path.write_bytes(b"Entry not found"), "text file"),
    "bytes": (lambda path: path.write_bytes(bytes(range(256)) * 9), "neither safetensors nor"),
    "old pickle format": (
        lambda path: torch.save({"a": torch.zeros(3)}, path, _use_new_zipfile_serialization=False),
        "neither safetensors nor",
    ),
    "bare pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "neither safetensors nor"),
    "not PyTorch's zip": (lambda path: zip_with(path), "zip file, but not one of PyTorch's"),
    "zip bomb": (
        lambda path: zip_with(path, pickled=bytes(50_000_000), compress=zipfile.ZIP_DEFLATED),
        "packed zip file",
    ),
    "huge pickle": (lambda path: zip_with(path, pickled=bytes(17 * 2**20)), "not one of PyTorch's"),
    "damaged pickle": (lambda path: zip_with(path, pickled=b"\x80\x02}q\x00junk"), "truncated or damaged"),
    "a list": (lambda path: torch.save([torch.zeros(3)], path), "other than a dictionary"),
    "numbers": (lambda path: torch.save({"a": 1.0}, path), "other than a dictionary"),
    "numbered": (lambda path: torch.save({0: torch.zeros(3)}, path), "other than a dictionary"),
    "sparse": (lambda path: torch.save({"a": torch.eye(3).to_sparse()}, path), "holds more than weights"),
    "claims more than it holds": (overstated, "claim more data than the file holds"),
    "the same data many times": (same_data_many_times, "does not fit: .* 97 more unexpected"),
    "lying safetensors header": (
        lambda path: path.write_bytes((2**60).to_bytes(8, "little") + b'{"a":{}}'),
        "its header claims 1152921504606846976 bytes of 16",
    ),
    "safetensors offsets beyond the end": (
        lambda path: path.write_bytes(
            (57).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}  '
        ),
        "truncated or damaged",
    ),
    "safetensors without tensors": (
        lambda path: path.write_bytes((2).to_bytes(8, "little") + b"{}"),
        "holds no tensors",
    ),
    "folder": (lambda path: path.mkdir(), "cannot be read"),
    "absent": (lambda path: None, "cannot be read \\(No such file"),
}


FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_what_torch_saves_of_tensors_is_read(tmp_path, dtype):
    module = nn.Linear(3, 2).to(dtype)
    kinds = {"state dict": module.state_dict(), "parameters": dict(module.named_parameters())}
    kinds["training"] = {"state_dict": module.state_dict(), "epoch": 7}
    for kind, content in kinds.items():
        torch.save(content, tmp_path / kind)
        tensors = read_tensors(tmp_path / kind)
        assert list(tensors) == ["weight", "bias"] and all(each.dtype == dtype for each in tensors.values())
        assert torch.equal(tensors["weight"].float(), module.weight.float())


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("case", WRONG_FILES)
def test_wrong_files_are_one_clear_error(case, tmp_path):
    write, message = WRONG_FILES[case]
    write(tmp_path / "unet.pth")
    assert_refused("unet", tmp_path / "unet.pth", message)


@pytest.mark.parametrize("kept", [0.001, 0.5, 0.999])
def test_truncated_files(tiny_checkpoint, tmp_path, kept):
    pth = tiny_checkpoint / "DICE-Talk" / "pose_guider.pth"
    save_file(torch.load(pth, weights_only=True), tmp_path / "whole.safetensors")
    for whole in (pth, tmp_path / "whole.safetensors"):
        data = whole.read_bytes()
        cut = tmp_path / f"cut{whole.suffix}"
        cut.write_bytes(data[: int(len(data) * kept)])
        assert_refused("pose_guider", cut, "truncated or damaged")


@pytest.mark.parametrize("place", ["instead", "as value", "beside"])
def test_code_in_a_file_never_runs(tensors, tmp_path, place):
    trace = tmp_path / "ran"
    contents = {"instead": Runs(trace), "as value": {"a": Runs(trace)}, "beside": {**tensors, "more": Runs(trace)}}[
        place
    ]
    path = tmp_path / "unet.pth"
    torch.save(contents, path)
    assert_refused("unet", path, "asks for code to be run, which was refused")
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "the file would run code for a reader that allows it"


def test_damaged_bytes_are_read_or_refused(tiny_checkpoint, tmp_path):
    data = bytearray((tiny_checkpoint / "DICE-Talk" / "pose_guider.pth").read_bytes())
    random = torch.Generator().manual_seed(0)
    path = tmp_path / "pose_guider.pth"
    for _ in range(60):
        damaged = data.copy()
        for position in torch.randint(0, len(data), (20,), generator=random).tolist() + [
            int(torch.randint(0, 2000, (1,), generator=random)),
            len(data) - 1 - int(torch.randint(0, 2000, (1,), generator=random)),
        ]:
            damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            load_part("pose_guider", path)
        except InputError as error:
            assert str(path) in str(error)


# ---------------------------------------------------------------- finding


def make(folder, *files):
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


PUBLISHED_LAYOUT = [
    *(f"DICE-Talk/{part}.pth" for part in PARTS),
    "whisper-tiny/config.json",
    "stable-video-diffusion-img2vid-xt/vae/config.json",
]


def test_published_layout(tmp_path):
    root = make(tmp_path / "checkpoints", *PUBLISHED_LAYOUT)
    make(tmp_path, "examples/emo/happy.npy")
    (checkpoint,) = find_checkpoints([root]).values()
    assert checkpoint.name == "DICE-Talk" and checkpoint.root == root
    assert checkpoint.files == {part: root / "DICE-Talk" / f"{part}.pth" for part in PARTS}
    assert checkpoint.whisper == root / "whisper-tiny"
    assert checkpoint.svd == root / "stable-video-diffusion-img2vid-xt"
    assert checkpoint.emotions == tmp_path / "examples" / "emo"
    assert not checkpoint.untrained
    make(root, "emotions/happy.safetensors", "UNTRAINED")
    (checkpoint,) = find_checkpoints([root]).values()
    assert checkpoint.emotions == root / "emotions" and checkpoint.untrained


def test_subfolders_files_lying_directly_and_what_they_share(tmp_path):
    root = make(
        tmp_path / "models" / "dicetalk", *PUBLISHED_LAYOUT, "mine/unet.safetensors", "mine/whisper-tiny/config.json"
    )
    make(root, "emotions/happy.npy", "other/DICE-Talk/unet.pth", "notes/readme.txt")
    found = find_checkpoints([root])
    assert list(found) == ["DICE-Talk", "mine", "other"]
    assert all(name == checkpoint.name for name, checkpoint in found.items())
    assert found["mine"].files == {"unet": root / "mine" / "unet.safetensors"}
    assert found["mine"].whisper == root / "mine" / "whisper-tiny"
    assert found["other"].whisper == root / "whisper-tiny"
    assert found["other"].emotions == root / "emotions"


def test_safetensors_come_first(tmp_path):
    make(tmp_path, "DICE-Talk/unet.pth", "DICE-Talk/unet.safetensors", "DICE-Talk/emo_model.pth")
    (checkpoint,) = find_checkpoints([tmp_path]).values()
    assert {part: path.name for part, path in checkpoint.files.items()} == {
        "unet": "unet.safetensors",
        "emo_model": "emo_model.pth",
    }


def test_folders_of_older_ports(tmp_path):
    models = tmp_path / "models"
    make(models / "dice_talk", *(f"{part}.pth" for part in PARTS))
    make(models / "sonic", "whisper-tiny/config.json")
    make(models / "dicetalk", "emotions/happy.npy")
    (checkpoint,) = find_checkpoints([models / "dicetalk"]).values()
    assert checkpoint.name == "dice_talk"
    assert set(checkpoint.files) == set(PARTS)
    assert checkpoint.whisper == models / "sonic" / "whisper-tiny"
    assert checkpoint.emotions == models / "dicetalk" / "emotions"
    assert resolve_checkpoint(models / "dice_talk").whisper == models / "sonic" / "whisper-tiny"


def test_names_are_unique_and_stable(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    make(first, "tiny/unet.pth")
    make(second, "tiny/unet.pth")
    found = find_checkpoints([first, second])
    assert list(found) == ["tiny", f"tiny ({second / 'tiny'})"]
    assert [checkpoint.name for checkpoint in found.values()] == list(found)
    assert list(find_checkpoints([first, second])) == list(found)


def test_a_folder_reached_twice_is_found_once(tmp_path):
    root = make(tmp_path / "dicetalk", "tiny/unet.pth")
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    assert len(find_checkpoints([root, root, str(root), tmp_path / "link"])) == 1


def test_junk_is_passed_over(tmp_path):
    make(tmp_path, "file", "empty.pth/x", ".hidden/unet.pth", "a\nb/unet.pth")
    (tmp_path / "unet.pth").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "broken").symlink_to(tmp_path / "absent")
    (tmp_path / "up").symlink_to(tmp_path, target_is_directory=True)
    found = find_checkpoints([tmp_path, tmp_path / "file", tmp_path / "absent", tmp_path / "loop", "\0", "~nobody/x"])
    assert list(found) == ["a\nb"]


def test_default_roots(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    home = tmp_path / "home" / "comfy" / "ComfyUI" / "models" / "dicetalk"
    assert default_roots() == [home, tmp_path / "checkpoints", ROOT / "miniature"]
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "ComfyUI"))
    package = tmp_path / "other" / "custom_nodes" / "pack" / "dicetalk"
    monkeypatch.setattr(finding, "__file__", str(package / "checkpoints" / "finding.py"))
    expected = [tmp_path / place / "models" / "dicetalk" for place in ("ComfyUI", "other")]
    own = package.parent / "miniature"
    assert default_roots() == [*expected, home, tmp_path / "checkpoints", own]


def test_order_explicit_path_then_comfyui_then_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "ComfyUI"))
    make(tmp_path / "explicit", "unet.pth")
    make(tmp_path / "checkpoints", "DICE-Talk/unet.pth")
    assert resolve_checkpoint().root == tmp_path / "checkpoints"
    make(tmp_path / "ComfyUI" / "models" / "dicetalk", "DICE-Talk/unet.pth", "UNTRAINED")
    assert resolve_checkpoint().root == tmp_path / "checkpoints", "a trained one comes before an untrained one"
    (tmp_path / "checkpoints" / "MINIATURE").touch()
    assert resolve_checkpoint().miniature, "the miniature comes before an untrained one"
    os.remove(tmp_path / "ComfyUI" / "models" / "dicetalk" / "UNTRAINED")
    assert resolve_checkpoint().root == tmp_path / "ComfyUI" / "models" / "dicetalk"
    assert resolve_checkpoint("explicit").root == tmp_path / "explicit"


@pytest.mark.parametrize(
    "path",
    [
        "repository/checkpoints",
        "repository",
        "repository/checkpoints/DICE-Talk",
        "repository/checkpoints/DICE-Talk/unet.pth",
    ],
)
def test_explicit_paths(tmp_path, path):
    make(tmp_path / "repository" / "checkpoints", *PUBLISHED_LAYOUT)
    checkpoint = resolve_checkpoint(str(tmp_path / path), roots=[])
    assert checkpoint.root == tmp_path / "repository" / "checkpoints"
    assert checkpoint.whisper == tmp_path / "repository" / "checkpoints" / "whisper-tiny"


def test_explicit_name_and_only_checkpoint_of_a_folder(tmp_path):
    root = make(tmp_path / "models", "tiny/unet.pth")
    assert resolve_checkpoint("tiny", roots=[root]).root == root / "tiny"
    assert resolve_checkpoint(root, roots=[]).root == root / "tiny"
    make(root, "other/unet.pth")
    with pytest.raises(InputError, match="holds several checkpoints: other, tiny"):
        resolve_checkpoint(root, roots=[])


@pytest.mark.parametrize("path", [None, "absent", "."])
def test_no_checkpoint_names_download_and_the_miniature(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        resolve_checkpoint(path, roots=[tmp_path / "models"])
    text = str(error.value)
    assert "dicetalk download" in text and f"{ROOT / 'miniature'}, the miniature" in text
    assert str(tmp_path / "models" if path is None else tmp_path / path) in text


def test_missing_parts_and_folders_are_named(tmp_path):
    make(tmp_path / "mine", "unet.pth")
    checkpoint = resolve_checkpoint(tmp_path / "mine")
    assert checkpoint.file("unet") == tmp_path / "mine" / "unet.pth"
    with pytest.raises(InputError, match="lacks emo_model.pth.*download --only dice-talk"):
        checkpoint.file("emo_model")
    for kind in ("whisper", "svd", "emotions"):
        with pytest.raises(InputError, match=f"lacks .*download --only {kind}"):
            checkpoint.folder(kind)


def test_tiny_checkpoint_is_complete(tiny_checkpoint, tmp_path):
    checkpoint = resolve_checkpoint(tiny_checkpoint)
    assert checkpoint.untrained and set(checkpoint.files) == set(PARTS)
    assert [checkpoint.folder(kind) for kind in ("whisper", "svd", "emotions")] == [
        tiny_checkpoint / name for name in ("whisper-tiny", "stable-video-diffusion-img2vid-xt", "emotions")
    ]
    flat = tmp_path / "flat"
    shutil.copytree(tiny_checkpoint / "DICE-Talk", flat)
    assert not resolve_checkpoint(flat).untrained
