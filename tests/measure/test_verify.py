import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from project import GOLDEN
from safetensors.torch import load_file, save_file

from dicetalk.cli import main
from dicetalk.measure import filling, verify
from dicetalk.measure.verify import filled_tensor, largest_error

CASES = sorted(path.name for path in GOLDEN.iterdir())
TRAINING = [name for name in CASES if name.endswith("_training")]


@pytest.fixture(autouse=True)
def one_set_of_modules():
    yield
    filling.built.cache_clear()


def case_folder(tmp_path, name="face_mask"):
    return Path(shutil.copytree(GOLDEN / name, tmp_path / name))


def change_tensors(folder, change):
    path = folder / verify.TENSORS_FILE
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)


def change_case(folder, **changes):
    path = folder / verify.CASE_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rows(capsys):
    return capsys.readouterr().out.splitlines()


OUTPUTS = {}


def remembered(compute):
    def given(case, inputs, device, dtype):
        asked = case if isinstance(case, dict) else (case.config, case.parameters, case.note)
        sums = {name: float(tensor.double().sum()) for name, tensor in inputs.items()}
        key = compute, repr(asked), repr(sums), dtype
        if key not in OUTPUTS:
            OUTPUTS[key] = compute(case, inputs, device, dtype)
        return OUTPUTS[key]

    return given


@pytest.fixture
def computed_once(monkeypatch):
    """What a golden case's inputs give is computed once for these tests: they change what is expected, no input."""
    for kinds in (verify._KINDS, verify.TRAINING_KINDS):
        for kind, compute in kinds.items():
            monkeypatch.setitem(kinds, kind, remembered(compute))


def test_every_golden_case_passes(computed_once, capsys):
    code = main(["verify", str(GOLDEN)])
    title, *table, summary = rows(capsys)
    assert title.split() == ["kind", "name", "largest", "error", "tolerance", "verdict"]
    assert [row.split()[1] for row in table] == CASES and len(CASES) == 17
    assert [row.split()[4].rstrip(":") for row in table] == ["pass"] * 17, "\n".join(table)
    assert (code, summary) == (0, "17 passed")
    column = title.index("verdict")
    assert all(row[column - 2 : column] == "  " and row[column:].startswith("pass") for row in table)


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("audio_65s", "sampling_30f", *TRAINING)])
def test_one_changed_number_fails(computed_once, tmp_path, capsys, name):
    folder = case_folder(tmp_path, name)
    tolerance = json.loads((folder / "case.json").read_text())["tolerance"]

    def change(tensors):
        expected = next(tensor for key, tensor in sorted(tensors.items()) if key.startswith("out."))
        expected.view(-1)[-1] += 2 * tolerance + (1 if tolerance == 0 else 0)

    change_tensors(folder, change)
    assert main(["verify", str(tmp_path)]) == 1
    assert "FAIL" in rows(capsys)[1]


@pytest.mark.parametrize("name", TRAINING)
def test_one_changed_number_of_training_fails(computed_once, tmp_path, capsys, name):
    for which in ("out.gradients", "out.loss", "_gradient"):
        folder = case_folder(tmp_path / which, name)

        def change(tensors, which=which):
            changed = next(tensor for key, tensor in sorted(tensors.items()) if key.endswith(which)).view(-1)
            changed[changed.abs().argmax()] *= 1.02

        change_tensors(folder, change)
        assert main(["verify", str(folder)]) == 1
        assert "FAIL" in rows(capsys)[1]


SMALL_EMOTION = {"tokens": 4, "width": 16, "hidden": 8, "codes": 5, "code_dim": 24, "heads": 2}
SMALL_EMOTION |= {"classifier_dims": [6, 4, 4, 3], "retrieval": True}


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"note": "no number"}, "neither config nor the note says the seed"),
        ({"parameters": ["attention.fc_z.bias"]}, "this model has no parameter attention.fc_z.bias"),
        ({"parameters": None}, "lists no parameters"),
        ({"relative_tolerance": None, "tolerance": 1.0}, "no usable relative_tolerance"),
        ({}, "out.tokens has shape (4, 4, 1024), but (4, 1, 16) was computed"),
    ],
)
def test_training_needs_its_seed_parameters_and_tolerance(tmp_path, capsys, changes, told):
    folder = case_folder(tmp_path, "emotion_retrieval_training")
    change_case(folder, config=SMALL_EMOTION, **changes)
    assert main(["verify", str(folder)]) == 1
    assert told in rows(capsys)[1]


def test_a_training_case_of_another_size_and_seed_agrees_with_itself_and_no_other(tmp_path, capsys):
    folder = case_folder(tmp_path, "emotion_retrieval_training")
    config = SMALL_EMOTION | {"masked": [True, False, True], "seed": 7, "emotion_dim": 12}
    change_case(folder, config=config)
    [case] = verify.find_cases([folder])
    inputs = {"z": torch.randn(3, 12, generator=torch.Generator().manual_seed(0))}
    outputs = verify.TRAINING_KINDS["emotion_training"](case, inputs, torch.device("cpu"), torch.float32)
    tensors = {f"out.{name}": tensor.detach().float().contiguous() for name, tensor in outputs.items()}
    save_file(tensors | {"in.z": inputs["z"]}, folder / "tensors.safetensors")
    assert main(["verify", str(folder)]) == 0
    change_case(folder, config=config | {"seed": 8})
    assert main(["verify", str(folder)]) == 1


@pytest.mark.parametrize(
    "break_case, reason",
    [
        (lambda f: (f / "case.json").unlink(), "case.json is missing"),
        (lambda f: (f / "case.json").write_text("{"), "case.json cannot be read"),
        (lambda f: (f / "case.json").write_text("[]"), "names no kind"),
        (lambda f: change_case(f, kind="video"), "unknown kind"),
        (lambda f: change_case(f, tolerance="small"), "no usable tolerance"),
        (lambda f: change_case(f, tolerance=float("nan")), "no usable tolerance"),
        (lambda f: change_case(f, config=[]), "not an object"),
        (lambda f: (f / "tensors.safetensors").unlink(), "tensors.safetensors is missing"),
        (lambda f: (f / "tensors.safetensors").write_bytes(b"nothing"), "tensors.safetensors cannot be read"),
        (lambda f: change_tensors(f, lambda t: t.pop("in.boxes")), "in.boxes is missing"),
        (lambda f: change_tensors(f, lambda t: [t.pop(n) for n in list(t) if "out" in n]), "no expected tensor"),
        (lambda f: change_tensors(f, lambda t: t.update({"out.colour": torch.zeros(1)})), "out.colour is expected"),
        (
            lambda f: change_tensors(f, lambda t: t.update({"out.sizes": t["out.sizes"][:5].clone()})),
            "has shape (5, 2)",
        ),
        (lambda f: change_tensors(f, lambda t: t["out.stats"].fill_(float("nan"))), "not finite"),
        (lambda f: change_tensors(f, lambda t: t["in.boxes"].fill_(float("nan"))), "FAIL"),
    ],
)
def test_a_broken_case_gives_its_reason_and_the_others_go_on(tmp_path, capsys, break_case, reason):
    break_case(case_folder(tmp_path))
    case_folder(tmp_path, "pose_guider")
    assert main(["verify", str(tmp_path)]) == 1
    _, broken, whole, summary = rows(capsys)
    assert reason in broken and "FAIL" in broken
    assert whole.split()[-1] == "pass" and summary == "1 passed, 1 failed"


def test_nan_from_the_model_fails_in_every_precision(tmp_path, capsys):
    folder = case_folder(tmp_path, "pose_guider")
    change_tensors(folder, lambda tensors: tensors["in.face_mask"].fill_(float("nan")))
    for dtype in verify.DTYPES:
        assert main(["verify", str(tmp_path), "--dtype", dtype]) == 1
        assert "not finite" in rows(capsys)[1]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_other_precisions_are_not_judged(capsys, dtype):
    names = ["pose_guider", "unet_square", "face_crop", "emotion_classifier"]
    assert main(["verify", *(str(GOLDEN / name) for name in names), "--dtype", dtype]) == 0
    _, *table, summary = rows(capsys)
    assert [row.split()[1] for row in table] == names
    assert all("not judged" in row for row in table) and summary == f"4 not judged in {dtype}"
    assert 1e-5 < float(table[0].split()[2]) < 1e-2


def test_folder_without_cases_is_bad_input(tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 2
    assert "holds no golden case" in capsys.readouterr().err
    case_folder(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(["verify", str(tmp_path), str(tmp_path / "empty")]) == 2
    assert main(["verify", str(tmp_path / "missing")]) == 2
    assert "is not a folder" in capsys.readouterr().err


def test_device_that_is_not_there_is_bad_input(capsys):
    for device in ("toaster", "cuda:99"):
        assert main(["verify", str(GOLDEN), "--device", device]) == 2
        assert f"--device {device} cannot be used" in capsys.readouterr().err


def test_cases_are_found_once_at_any_depth(tmp_path):
    case_folder(tmp_path / "a" / "b", "face_crop")
    found = verify.find_cases([tmp_path, tmp_path / "a", tmp_path / "a" / "b" / "face_crop"])
    assert [case.name for case in found] == ["a/b/face_crop"]
    assert [case.name for case in verify.find_cases([tmp_path / "a" / "b" / "face_crop"])] == ["face_crop"]


def test_sampling_rounding_is_allowed_only_when_float64_agrees(tmp_path, monkeypatch):
    folder = case_folder(tmp_path, "face_mask")
    change_case(folder, kind="sampling", tolerance=0.5)
    errors = {torch.float32: 2.0, torch.float64: 0.4}
    [case] = verify.find_cases([folder])
    monkeypatch.setattr(verify, "_error", lambda case, inputs, expected, device, dtype: errors[dtype])
    result = verify.verify_case(case)
    assert (result.error, result.verdict) == (2.0, verify.PASSED) and "0.4 in float64" in result.reason
    errors[torch.float64] = 0.6
    assert verify.verify_case(case).verdict == verify.FAILED
    errors.update({torch.float32: 3.0, torch.float64: 0.4})
    assert verify.verify_case(case).verdict == verify.FAILED


def test_threads_are_as_before(tmp_path):
    before = torch.get_num_threads()
    verify.verify_case(verify.find_cases([GOLDEN / "face_crop"])[0])
    assert torch.get_num_threads() == before


def test_filled_tensors_follow_the_rule():
    noise = np.random.RandomState(0x50EEC96F).standard_normal(2)  # CRC-32 of b"a.weight"
    assert torch.equal(filled_tensor("a.weight", (2,)), torch.from_numpy(np.float32(1 + 0.1 * noise)))
    wide = filled_tensor("conv.weight", (50, 40, 3, 3))
    assert wide.dtype == torch.float32 and wide.std() == pytest.approx(1 / np.sqrt(360), rel=0.05)
    assert filled_tensor("norm.weight", (1000,)).mean() == pytest.approx(1, abs=0.02)
    assert filled_tensor("norm.bias", (1000,)).std() == pytest.approx(0.02, rel=0.1)
    mixes = torch.cat([filled_tensor(f"{i}.time_mixer.mix_factor", (1,)) for i in range(500)])
    assert mixes.std() == pytest.approx(0.5, rel=0.1)


def test_largest_error_sees_every_tensor_and_nan():
    expected = {"a": torch.zeros(2), "b": torch.zeros(3)}
    assert largest_error({"a": torch.zeros(2), "b": torch.tensor([0.0, -0.5, 0.0])}, expected) == 0.5
    assert np.isnan(largest_error({"a": torch.zeros(2), "b": torch.tensor([0.0, float("nan"), 9.0])}, expected))
