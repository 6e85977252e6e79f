"""Emotion files: the published form is read exactly; everything else is refused without running what it asks for."""

import io
import json
import os
import pickle
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from dicetalk.checkpoints.priors import load_prior, load_priors, read_emotion, read_gaussian, read_prior
from dicetalk.emotion.files import save_emotion
from dicetalk.emotion.mixing import mix
from dicetalk.emotion.options import BankOptions
from dicetalk.emotion.parsing import resolve
from dicetalk.emotion.text import read_argument
from dicetalk.emotion.timeline import EmotionTimeline, TimelineKey
from dicetalk.emotion.value import Emotion
from dicetalk.errors import InputError

MU = np.random.RandomState(0).standard_normal((1, 256)).astype(np.float32)


def npy(contents, protocol=3):
    """Bytes of a .npy file with a pickled 0-d object array, as the published priors are."""
    array = np.empty((), dtype=object)
    array[()] = contents
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(array))
    pickle.dump(array, stream, protocol=protocol)
    return stream.getvalue()


def npy_header(text):
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


HEADER = npy({})[:128]


@pytest.fixture
def written(tmp_path):
    def write(data, name="joy.npy"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2"])
def test_reads_the_published_form(written, protocol, dtype):
    prior = read_prior(written(npy({"mu": MU.astype(dtype)}, protocol)))
    assert prior.shape == (256,) and prior.dtype == np.float32
    np.testing.assert_array_equal(prior, MU[0].astype(dtype).astype(np.float32))


def test_reads_old_and_new_numpy_spelling(written):
    data = npy({"mu": MU})
    spellings = {b"numpy.core.multiarray", b"numpy._core.multiarray"}
    (own,) = [spelling for spelling in spellings if spelling in data]
    (other,) = spellings - {own}
    np.testing.assert_array_equal(read_prior(written(data.replace(own, other))), MU[0])


def test_reads_a_plain_float_array(written):
    stream = io.BytesIO()
    np.save(stream, MU[0])
    np.testing.assert_array_equal(read_prior(written(stream.getvalue())), MU[0])


@pytest.mark.parametrize("key", ["mu", "mean"])
def test_reads_safetensors(tmp_path, key):
    deviation = np.abs(MU)
    save_file({key: MU, "deviation": deviation}, tmp_path / "joy.safetensors")
    mean, read_deviation = read_gaussian(tmp_path / "joy.safetensors")
    np.testing.assert_array_equal(mean, MU[0])
    np.testing.assert_array_equal(read_deviation, deviation[0])


class Runs:
    """Pickles as a call that leaves a trace."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("place", ["instead", "as value", "beside", "as key's array"])
def test_code_in_a_pickle_never_runs(written, tmp_path, protocol, place):
    trace = tmp_path / "ran"
    contents = {
        "instead": Runs(trace),
        "as value": {"mu": Runs(trace)},
        "beside": {"mu": MU, "more": Runs(trace)},
        "as key's array": {"mu": np.array([Runs(trace)], dtype=object)},
    }[place]
    path = written(npy(contents, protocol))
    with pytest.raises(InputError) as error:
        read_prior(path)
    assert not trace.exists()
    assert str(path) in str(error.value) and "dicetalk download" in str(error.value)
    np.load(path, allow_pickle=True)
    assert trace.exists(), "the file would run code for a reader that allows it"


def nan():
    broken = MU.copy()
    broken[0, 3] = np.nan
    return broken


REFUSED = {
    "empty": (b"", "empty"),
    "text": (b"<!DOCTYPE html><html>404</html>", "neither"),
    "too large": (HEADER + bytes(70_000), "larger than 64 KiB"),
    "no pickle": (HEADER, "damaged"),
    "truncated": (npy({"mu": MU})[:-100], "damaged"),
    "header cut": (HEADER[:20], "header is damaged"),
    "header length lies": (b"\x93NUMPY\x01\x00\xff\xff{}", "header is damaged"),
    "header is no literal": (npy_header(b"{'descr': __import__('os')}\n"), "header is damaged"),
    "header is unfinished": (npy_header(b"{'descr': ((((\n"), "header is damaged"),
    "unknown version": (b"\x93NUMPY\x09\x00" + HEADER[8:], "header is damaged"),
    "claims much": (npy_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }\n"), "shape"),
    "claims more than it holds": (
        npy_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (256,), }\n") + bytes(8),
        "8 bytes of data",
    ),
    "structured": (npy_header(b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (256,), }\n"), "type"),
    "many objects": (
        npy({})[:10] + HEADER[10:].replace(b"()", b"(2,)").replace(b"   \n", b"  \n") + b"N.",
        "other objects",
    ),
    "a list": (npy([MU]), "one dictionary"),
    "wrong key": (npy({"sigma": MU}), "holds 'sigma'"),
    "further key": (npy({"mu": MU, "sigma": MU}), "holds 'mu', 'sigma'"),
    "number as key": (npy({3: MU}), "damaged"),
    "both keys": (npy({"mu": MU, "mean": MU}), "must hold"),
    "no key": (npy({}), "holds nothing"),
    "number": (npy({"mu": 3}), "other than arrays"),
    "text value": (npy({"mu": "angry"}), "other than arrays"),
    "whole numbers": (npy({"mu": MU.astype(np.int32)}), "type '<i4'"),
    "complex": (npy({"mu": MU.astype(np.complex64)}), "type '<c8'"),
    "shape": (npy({"mu": np.zeros((2, 256), np.float32)}), r"shape \(2, 256\)"),
    "size": (npy({"mu": np.zeros(128, np.float32)}), r"shape \(128,\)"),
    "scalar array": (npy({"mu": np.array(1.0, np.float32)}), r"shape \(\)"),
    "not finite": (npy({"mu": nan()}), "not finite"),
    "too large a number": (npy({"mu": np.full((1, 256), 1e300)}), "not finite"),
    "negative deviation": (npy({"mu": MU, "deviation": -np.abs(MU)}), "negative"),
    "huge memo": (HEADER + b"\x80\x03Nr\xff\xff\xff\x7f.", "other than arrays"),
    "persistent id": (HEADER + b"\x80\x03X\x01\x00\x00\x00aQ.", "instruction BINPERSID"),
    "extension": (HEADER + b"\x80\x03\x82\x01.", "instruction EXT1"),
    "calls a list": (HEADER + b"\x80\x03])R.", "asks to call something"),
    "contains itself": (HEADER + b"\x80\x03]q\x00h\x00a.", "other than arrays"),
    "stops at once": (HEADER + b".", "damaged"),
    "pops too much": (HEADER + b"\x80\x03\x85.", "damaged"),
    "lying length": (HEADER + b"\x80\x03B\xff\xff\xff\x7fab.", "damaged"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(written, case):
    data, message = REFUSED[case]
    path = written(data)
    with pytest.raises(InputError, match=message) as error:
        read_prior(path)
    assert str(path) in str(error.value) and "dicetalk download" in str(error.value)
    assert "\n" not in str(error.value)


def lying_safetensors(shape, offsets, data=b"", dtype="F32", size=None):
    header = json.dumps({"mu": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode()
    return (len(header) if size is None else size).to_bytes(8, "little") + header + data


@pytest.mark.parametrize(
    "data",
    [
        lying_safetensors([1, 256], [0, 1024], bytes(100)),
        lying_safetensors([1, 2**40], [0, 2**42], bytes(1024)),
        lying_safetensors([1, 256], [0, 1024], bytes(1024), size=2**60),
        lying_safetensors([1, 256], [0, 512], bytes(512), dtype="BF16"),
        lying_safetensors([256], [0, 1024], b"\xff" * 1024),
        lying_safetensors([256], [0, 1024], bytes(1024), dtype="I32"),
        b"\x02" + bytes(7) + b"{}",
    ],
    ids=["truncated", "huge", "header size", "bfloat16", "NaN", "whole numbers", "nothing"],
)
def test_refuses_safetensors(written, data):
    path = written(data, "joy.safetensors")
    with pytest.raises(InputError, match="is no emotion prior"):
        read_prior(path)


@pytest.mark.parametrize("name", ["absent.npy", "folder.npy"])
def test_names_a_file_that_cannot_be_read(tmp_path, name):
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(InputError, match=name):
        read_prior(tmp_path / name)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, data):
    original = npy({"mu": MU}, data.draw(st.sampled_from([3, 4])))
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, 340))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "fuzzed.npy"
    path.write_bytes(bytes(damaged))
    try:
        prior = read_prior(path)
    except InputError:
        return
    assert prior.shape == (256,) and prior.dtype == np.float32 and np.isfinite(prior).all()


def test_load_priors(tmp_path):
    (tmp_path / "joy.npy").write_bytes(npy({"mu": MU}))
    (tmp_path / "calm.npy").write_bytes(npy({"mu": MU}))
    save_file({"mean": -MU[0]}, tmp_path / "calm.safetensors")
    (tmp_path / "notes.txt").write_text("not an emotion")
    (tmp_path / "folder.npy").mkdir()
    priors = load_priors(tmp_path)
    assert list(priors) == ["calm", "joy"]
    assert torch.equal(priors["joy"].mean, torch.from_numpy(MU[0]))
    assert torch.equal(priors["calm"].mean, torch.from_numpy(-MU[0])), "safetensors comes before .npy"
    assert priors["joy"].name == "joy" and not priors["joy"].deviation.any()
    assert priors["joy"].provenance.startswith("joy.npy sha256:")


def test_a_published_file_is_an_emotion_by_its_path(written, tmp_path):
    path = written(npy({"mu": MU}))
    emotion = resolve(read_emotion(f" {path} "), {}, str(path))
    assert emotion == load_prior(path) and emotion.name == path.stem
    assert read_emotion("happy:1.3") == read_argument("happy:1.3")
    with pytest.raises(InputError, match="lost.npy cannot be read"):
        read_emotion(tmp_path / "lost.npy")
    for name in ("happy.npz", "my mood.PT", "moods/timeline.txt", "a.json"):
        with pytest.raises(InputError, match=rf"{name} is no emotion: a file of one ends in .npy or .safetensors"):
            read_emotion(name)


def test_load_priors_takes_saved_emotions_as_they_are(tmp_path):
    smile = Emotion(MU[0], np.abs(MU[0]), "grin", "drawn by hand", BankOptions("nearest"))
    save_emotion(smile, tmp_path / "smile.safetensors")
    loaded = load_priors(tmp_path)["smile"]
    assert loaded == smile and loaded.name == "smile" and loaded.provenance == "drawn by hand"


@pytest.mark.parametrize("name", ["neutral", "happy"])
@pytest.mark.parametrize("kind", ["timeline", "mix by tokens"])
def test_one_of_the_eight_is_a_single_emotion(tmp_path, name, kind):
    smile, frown = Emotion(MU[0], name="smile"), Emotion(-MU[0], name="frown")
    timeline = EmotionTimeline((TimelineKey(0, smile), TimelineKey(1, frown)))
    saved = timeline if kind == "timeline" else mix([smile, frown], method="tokens")
    save_emotion(saved, tmp_path / f"{name}.safetensors")
    with pytest.raises(InputError, match=f"{name}.safetensors is no emotion prior.*a timeline or a mix.*another name"):
        load_priors(tmp_path)
    (tmp_path / f"{name}.safetensors").rename(tmp_path / "scene.safetensors")
    assert load_priors(tmp_path)["scene"] == saved


def test_load_priors_names_what_it_cannot_use(tmp_path):
    with pytest.raises(InputError, match="holds no emotion.*dicetalk download"):
        load_priors(tmp_path)
    with pytest.raises(InputError, match="cannot be read.*dicetalk download"):
        load_priors(tmp_path / "absent")
    (tmp_path / "joy.npy").write_bytes(b"junk")
    with pytest.raises(InputError, match="joy.npy"):
        load_priors(tmp_path)
