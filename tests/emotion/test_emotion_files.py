import json
import os
import pickle

import numpy as np
import pytest
import torch
from emotions import make_priors, make_spread
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from dicetalk.emotion.files import (
    EmotionLibrary,
    check_name,
    emotion_from_content,
    load_emotion,
    save_emotion,
    saved_names,
    saved_path,
)
from dicetalk.emotion.mixing import mix
from dicetalk.emotion.options import BankOptions
from dicetalk.emotion.timeline import EmotionTimeline, TimelineKey
from dicetalk.errors import InputError

PRIORS = make_priors()
HAPPY, SAD = PRIORS["happy"], PRIORS["sad"]
PLAIN = HAPPY.with_deviation(make_spread(0)).with_bank(BankOptions("top-k", 5, 0.7))
TOKENS = mix([PLAIN, SAD, PRIORS["fear"]], [1, 3, 1 / 3], "tokens").renamed("Mischung", "a test")
LINE = EmotionTimeline(
    (TimelineKey(0.1, PLAIN), TimelineKey(2, TOKENS, "smooth"), TimelineKey(3, SAD, "step")), "line", "made"
)
ZEROS = torch.zeros(1, 256)


def content_of(emotion, folder):
    path = folder / "content.safetensors"
    save_emotion(emotion, path)
    with safe_open(path, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}


@pytest.mark.parametrize("emotion", [HAPPY, PLAIN, TOKENS, LINE], ids=["prior", "plain", "token mix", "timeline"])
def test_saved_and_loaded(emotion, tmp_path):
    path = tmp_path / "emotion.safetensors"
    save_emotion(emotion, path)
    loaded = load_emotion(str(path))
    assert type(loaded) is type(emotion) and loaded == emotion
    assert (loaded.name, loaded.provenance) == (emotion.name, emotion.provenance)
    save_emotion(SAD, path)
    assert load_emotion(path) == SAD
    assert os.listdir(tmp_path) == ["emotion.safetensors"]


def test_metadata_can_be_read_by_a_person(tmp_path):
    metadata, tensors = content_of(LINE, tmp_path)
    assert metadata["format"] == "dicetalk-emotion" and metadata["version"] == "1"
    described = json.loads(metadata["emotion"])
    assert [(key["time"], key["easing"]) for key in described["keys"]] == [(0.1, "linear"), (2, "smooth"), (3, "step")]
    assert described["keys"][0]["emotion"]["name"] == "happy"
    assert described["keys"][0]["emotion"]["bank"] == {"mode": "top-k", "top_k": 5, "temperature": 0.7}
    assert tensors["mean"].shape == tensors["deviation"].shape == (5, 256)


def test_saving_is_checked(tmp_path):
    with pytest.raises(InputError, match="a name that ends in .safetensors"):
        save_emotion(HAPPY, tmp_path / "happy.npy")
    blocked = tmp_path / "happy.safetensors"
    blocked.mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        save_emotion(HAPPY, blocked)
    with pytest.raises(InputError, match="cannot be written"):
        save_emotion(HAPPY, "/dev/null/happy.safetensors")
    assert os.listdir(tmp_path) == ["happy.safetensors"]


def change(metadata, **fields):
    record = json.loads(metadata["emotion"])
    record.update(fields)
    return {**metadata, "emotion": json.dumps(record)}


BROKEN_FILES = {
    "empty": b"",
    "text": b"<html>not found</html>",
    "lying header": (2**63).to_bytes(8, "little") + b"{}",
    "huge header": (50 * 2**20).to_bytes(8, "little") + b"{" + b" " * 1000,
    "pickle": pickle.dumps({"mu": np.zeros((1, 256))}),
}


@pytest.mark.parametrize("content", BROKEN_FILES.values(), ids=BROKEN_FILES.keys())
def test_other_files_are_refused(content, tmp_path):
    path = tmp_path / "emotion.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="emotion.safetensors: not a readable safetensors file"):
        load_emotion(path)


def test_code_in_a_file_is_not_run(tmp_path):
    class Attack:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "run"),))

    path = tmp_path / "emotion.safetensors"
    path.write_bytes(pickle.dumps(Attack()))
    with pytest.raises(InputError):
        load_emotion(path)
    assert not (tmp_path / "run").exists()


def test_missing_too_large_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "emotion.safetensors"
    with pytest.raises(InputError, match="no such file"):
        load_emotion(path)
    with pytest.raises(InputError, match="no such file"):
        load_emotion(tmp_path)
    with open(path, "wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(InputError, match="too large"):
        load_emotion(path)
    save_file({"mean": ZEROS, "deviation": ZEROS.clone()}, path)
    with pytest.raises(InputError, match="not a saved emotion"):
        load_emotion(path)
    save_file({"mean": ZEROS, "deviation": ZEROS.clone()}, path, {"format": "dicetalk-emotion", "version": "9"})
    with pytest.raises(InputError, match="another version"):
        load_emotion(path)


WRONG_TENSORS = {
    "none": {},
    "one missing": {"mean": ZEROS},
    "one too many": {"mean": ZEROS, "deviation": ZEROS, "extra": ZEROS},
    "flat": {"mean": ZEROS[0], "deviation": ZEROS[0]},
    "narrow": {"mean": ZEROS[:, :9], "deviation": ZEROS[:, :9]},
    "half precision": {"mean": ZEROS.half(), "deviation": ZEROS.half()},
    "rows differ": {"mean": ZEROS, "deviation": torch.zeros(2, 256)},
    "no rows": {"mean": ZEROS[:0], "deviation": ZEROS[:0]},
    "rows left over": {"mean": torch.zeros(2, 256), "deviation": torch.zeros(2, 256)},
    "not finite": {"mean": ZEROS + float("nan"), "deviation": ZEROS},
    "negative": {"mean": ZEROS, "deviation": ZEROS - 1},
}


@pytest.mark.parametrize("tensors", WRONG_TENSORS.values(), ids=WRONG_TENSORS.keys())
def test_wrong_numbers_are_refused(tensors, tmp_path):
    metadata, _ = content_of(HAPPY, tmp_path)
    path = tmp_path / "emotion.safetensors"
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path, metadata)
    with pytest.raises(InputError, match=str(path)):
        load_emotion(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "clip"},
        {"kind": ["emotion"]},
        {"kind": "timeline"},
        {"kind": "timeline", "keys": []},
        {"kind": "timeline", "keys": [{"time": 10**400, "easing": "linear", "emotion": {}}]},
        {"kind": "token mix", "parts": {"a": 1}},
        {"name": None},
        {"name": "two\nlines"},
        {"name": "\ud800"},
        {"bank": {}},
        {"bank": {"mode": "full", "top_k": 8, "temperature": float("nan")}},
        {"bank": {"mode": ["full"], "top_k": 8, "temperature": 1}},
        {"bank": {"mode": "top-k", "top_k": 10**500, "temperature": 1}},
    ],
)
def test_wrong_descriptions_are_refused(fields, tmp_path):
    metadata, tensors = content_of(HAPPY, tmp_path)
    with pytest.raises(InputError) as caught:
        emotion_from_content(change(metadata, **fields), tensors)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["", "[]", "null", "1", '"x"', "{", "[" * 100_000, '{"a":' * 100_000])
def test_unreadable_descriptions_are_refused(text):
    with pytest.raises(InputError):
        emotion_from_content({"emotion": text}, {"mean": ZEROS, "deviation": ZEROS})


def test_timelines_do_not_nest(tmp_path):
    metadata, tensors = content_of(LINE, tmp_path)
    record = json.loads(metadata["emotion"])
    record["keys"][0]["emotion"] = json.loads(metadata["emotion"])
    with pytest.raises(InputError, match="timeline"):
        emotion_from_content({"emotion": json.dumps(record)}, tensors)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["kind", "name", "provenance", "bank", "keys", "parts", "time", "easing", "emotion", "weight", "mode"]
            ),
            inner | st.sampled_from(["timeline", "token mix", "emotion", "linear", "full"]),
            max_size=5,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(anything)
def test_whatever_the_metadata_holds(record):
    with pytest.raises(InputError):
        emotion_from_content({"emotion": json.dumps(record)}, {"mean": ZEROS, "deviation": ZEROS})


@pytest.fixture(scope="module")
def saved_bytes(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "line.safetensors"
    save_emotion(LINE, path)
    return path.read_bytes()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=4),
    st.none() | st.integers(0, 14000),
)
def test_damaged_files_are_read_or_refused(saved_bytes, tmp_path, changes, length):
    content = bytearray(saved_bytes)
    for position, byte in changes:
        content[position] = byte
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content[:length])
    try:
        load_emotion(path)
    except InputError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("name", ["smile", "my smile 2", "Größe", "sad 0.7 + fear 0.3", "(a)", "a", "x" * 200])
def test_good_names(name, tmp_path):
    save_emotion(HAPPY, saved_path(tmp_path, name))
    assert saved_names(tmp_path) == [name]


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "/etc/x",
        "C:x",
        ".hidden",
        "a\0",
        "a\n",
        "con",
        "NUL.x",
        "a.",
        "a ",
        "x" * 201,
        "ü" * 101,
        "happy",
        None,
    ],
)
def test_bad_names(name):
    with pytest.raises(InputError):
        check_name(name)


def test_links_out_of_the_folder_are_not_followed(tmp_path):
    folder = tmp_path / "saved"
    folder.mkdir()
    save_emotion(HAPPY, tmp_path / "outside.safetensors")
    save_emotion(SAD, folder / "inside.safetensors")
    (folder / "link.safetensors").symlink_to(tmp_path / "outside.safetensors")
    assert saved_names(folder) == ["inside"]
    with pytest.raises(InputError, match="link"):
        saved_path(folder, "link")
    assert "link" not in EmotionLibrary({}, [folder])
    assert saved_names(tmp_path / "nowhere") == []


def test_library(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, emotion in ((one, HAPPY), (two, SAD)):
        folder.mkdir()
        save_emotion(emotion, folder / "mine.safetensors")
    save_emotion(SAD, one / "happy.safetensors")
    (two / "broken.safetensors").write_bytes(b"broken")
    library = EmotionLibrary(PRIORS, [one, two])
    assert set(library) == set(PRIORS) | {"mine", "broken"} and len(library) == 10
    assert library["mine"] == HAPPY and library["mine"].name == "mine"
    assert library["happy"] is HAPPY
    assert "other" not in library and library.get("other") is None
    with pytest.raises(InputError, match="broken.safetensors"):
        library["broken"]
