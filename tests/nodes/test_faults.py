"""Faults inside ComfyUI: memory runs out, a run is cancelled, the server is killed. The next run works."""

import copy
import json
import logging
import threading
import time
from contextlib import contextmanager

import av
import numpy as np
import pytest
import torch
from comfy_server import Interrupted, PromptError, furnished
from project import GRAPHS, ROOT
from safetensors.torch import save_file
from small_model import SmallModel

QUICK_START = json.loads((GRAPHS / "quick_start.json").read_text())
WINDOW = 25


@pytest.fixture(scope="module")
def small(pack):
    return SmallModel(pack)


@pytest.fixture(scope="module")
def plain(small):
    return small.sample()[0]


@pytest.fixture
def room_for(small, monkeypatch):
    """Let the model run out of memory when it gets more rows at once; the list that it returns grows by the rows."""

    def limit(rows, error=None, after=0):
        model, batches = small.patcher.model, []
        apply = type(model).apply_model

        def apply_model(x, *args, **kwargs):
            batches.append(len(x))
            if len(x) > rows and len(batches) > after:
                raise error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return apply(model, x, *args, **kwargs)

        monkeypatch.setattr(model, "apply_model", apply_model)
        return batches

    return limit


@pytest.mark.parametrize("error", [None, MemoryError(), "MPS backend out of memory"])
def test_branches_go_one_after_the_other_and_give_the_same_frames(small, plain, room_for, caplog, error):
    batches = room_for(WINDOW, RuntimeError(error) if isinstance(error, str) else error)
    with caplog.at_level(logging.WARNING):
        split, _ = small.sample()
    assert batches[0] == 3 * WINDOW and set(batches[1:]) == {WINDOW}  # tried once, not at every window
    assert (split - plain).abs().max() < 1e-3 * plain.abs().max()
    assert "one after the other" in caplog.text


def test_memory_that_runs_out_in_the_middle_of_a_run_changes_rounding_only(small, plain, room_for):
    batches = room_for(WINDOW, after=3)
    split, _ = small.sample()
    assert batches[:4] == [3 * WINDOW] * 4 and set(batches[4:]) == {WINDOW}
    assert (split - plain).abs().max() < 1e-3 * plain.abs().max()


def test_the_next_run_begins_with_all_branches_again(small, plain, room_for, monkeypatch):
    guider = small.guider()
    with monkeypatch.context():
        room_for(WINDOW)
        small.sample(guider)
    batches = room_for(3 * WINDOW)
    assert torch.equal(small.sample(guider)[0], plain)
    assert set(batches) == {3 * WINDOW}


def test_without_leave_for_smaller_windows_one_error_says_what_would_fit(small, room_for, monkeypatch):
    import comfy.model_management

    errors = small.module("dicetalk.errors")
    guider = small.guider(conditions=small.conditions(latent=(4, 32, 48)))
    needed = small.patcher.model.memory_required([WINDOW, 4, 32, 48])
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda *args, **kwargs: 0.6 * needed)
    batches = room_for(WINDOW - 1)
    with pytest.raises(errors.InputError) as refused:
        small.sample(guider, steps=1)
    text = str(refused.value)
    assert "25 frames of 384×256 pixels" in text
    assert "set short_side of DICE-Talk Portrait to 192" in text  # 0.6 of the pixels: 198 of the 256
    assert "smaller_windows" in text
    assert not comfy.model_management.is_oom(refused.value)
    assert batches == [WINDOW, WINDOW]  # ComfyUI, which knows what is free, did not even try all three at once


def test_smaller_windows_are_used_only_when_allowed_and_needed(small, plain, room_for, caplog):
    allowed = small.guider(smaller_windows=True)
    assert torch.allclose(small.sample(allowed)[0], plain, atol=1e-4)

    batches = room_for(7)
    frames, _ = small.sample(allowed)
    assert batches[:4] == [75, 25, 13, 7] and set(batches[3:]) == {7}
    assert frames.isfinite().all() and not torch.allclose(frames, plain, atol=1e-2)
    assert "7 frames from here on, which changes the result" in caplog.text


def test_memory_for_no_window_at_all_ends_with_one_error(small, room_for):
    errors = small.module("dicetalk.errors")
    batches = room_for(0)
    with pytest.raises(errors.InputError) as refused:
        small.sample(small.guider(smaller_windows=True))
    assert "4 frames" in str(refused.value) and "smaller_windows" not in str(refused.value)
    assert batches == [75, 25, 13, 7, 4]


def test_other_errors_are_not_taken_for_it(small, room_for):
    batches = room_for(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        small.sample()
    assert batches == [75]


def test_what_a_failed_attempt_held_is_free_before_the_next(small, monkeypatch):
    """Else the second attempt would have even less memory than the first."""
    import weakref

    model, held, alive = small.patcher.model, [], []
    apply = type(model).apply_model

    def apply_model(x, *args, **kwargs):
        if len(x) > WINDOW:
            activations = torch.ones(10)
            held.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("CUDA out of memory")
        alive.extend(each() is not None for each in held)
        return apply(model, x, *args, **kwargs)

    monkeypatch.setattr(model, "apply_model", apply_model)
    small.sample(steps=1)
    assert held and alive and not any(alive)


def test_easycache_skips_the_same_steps_where_branches_go_one_after_the_other(small, room_for):
    from comfy_extras.nodes_easycache import EasyCacheNode

    (patcher,) = EasyCacheNode.execute(small.patcher, 0.2, 0.15, 0.95, False).result
    guider = small.guider(patcher, scales=(1.0, 3.0))
    whole = room_for(2 * WINDOW)
    cached, _ = small.sample(guider, steps=8)
    batches = room_for(WINDOW)
    split, _ = small.sample(guider, steps=8)
    assert (split - cached).abs().max() < 1e-3 * cached.abs().max()
    assert sum(batches[1:]) == sum(whole)


# On a real server of its own, with a node that notes when work begins, and can let decoding go otherwise

RECORDER = """
import os
import time
import comfy.model_base
import comfy.sd
import torch
import transformers.models.whisper.modeling_whisper as whisper

def recorded(kind, method, name):
    def call(*args, **kwargs):
        with open(CALLS, "a") as file:
            file.write(f"{name} {time.time()}\\n")
        return method(*args, **kwargs)
    setattr(kind, method.__name__, call)

recorded(comfy.model_base.BaseModel, comfy.model_base.BaseModel.apply_model, "window")
recorded(whisper.WhisperEncoder, whisper.WhisperEncoder.forward, "speech")

decode = comfy.sd.VAE.decode

def decode_otherwise(vae, samples, *args, **kwargs):
    wanted = open(DECODING).read() if os.path.exists(DECODING) else ""
    if wanted == "out of memory":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    if wanted == "noise":  # which makes large files
        return torch.rand(len(samples), 128, 128, 3)
    return decode(vae, samples, *args, **kwargs)

comfy.sd.VAE.decode = decode_otherwise
NODE_CLASS_MAPPINGS = {}
"""
SECONDS = 300  # in which something must begin on a busy machine


class Recorded:
    """A server, and when its model calls began; what decoding gives."""

    def __init__(self, server, calls, decoding):
        self.server, self.calls, self._decoding = server, calls, decoding

    @contextmanager
    def decoding(self, wanted):
        """Let decoding end in "out of memory", or give "noise"."""
        self._decoding.write_text(wanted)
        try:
            yield
        finally:
            self._decoding.unlink()

    def begun(self, name):
        """Times of the calls of that name."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [float(line.split()[1]) for line in lines if line.startswith(name)]

    def wait_for(self, name, count):
        deadline = time.monotonic() + SECONDS
        while len(self.begun(name)) < count:
            assert time.monotonic() < deadline, f"fewer than {count} calls of {name}"
            time.sleep(0.02)

    def cancel_after(self, graph, name, count):
        """Run the graph, cancel it when `count` calls were begun: those begun later, and seconds until its end."""
        self.calls.unlink(missing_ok=True)
        asked = []

        def cancel():
            self.wait_for(name, count)
            self.server.interrupt()
            asked.append(time.time())

        thread = threading.Thread(target=cancel)
        thread.start()
        with pytest.raises(Interrupted):
            self.server.run(graph)
        ended = time.time()
        thread.join()
        time.sleep(0.5)  # whatever went on would begin now
        began = self.begun(name)
        return sum(each > asked[0] for each in began), ended - asked[0], max(np.diff(began), default=0)


@pytest.fixture(scope="module")
def recorded(comfyui, tiny_checkpoint, tmp_path_factory):
    base = tmp_path_factory.mktemp("faults")
    calls, decoding = base / "calls.txt", base / "decoding"
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / "recorder.py").write_text(
        f"CALLS, DECODING = {str(calls)!r}, {str(decoding)!r}\n{RECORDER}"
    )
    server = furnished(comfyui, ROOT, base, tiny_checkpoint)
    yield Recorded(server, calls, decoding)
    server.stop()


def with_guider(graph):
    """The graph with DICE-Talk Guider and SamplerCustomAdvanced in place of DICE-Talk Sampler."""
    inputs = graph["9"]["inputs"]
    own = ("seed", "steps", "sampler_name", "scheduler")
    sigmas = {"model": inputs["model"], "scheduler": "karras", "steps": inputs["steps"], "denoise": 1.0}
    graph |= {
        "20": {"class_type": "DiceTalkGuider", "inputs": {k: v for k, v in inputs.items() if k not in own}},
        "21": {"class_type": "RandomNoise", "inputs": {"noise_seed": inputs["seed"]}},
        "22": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": inputs["sampler_name"]}},
        "23": {"class_type": "BasicScheduler", "inputs": sigmas},
    }
    sockets = {"noise": ["21", 0], "guider": ["20", 0], "sampler": ["22", 0], "sigmas": ["23", 0]}
    graph["9"] = {"class_type": "SamplerCustomAdvanced", "inputs": sockets | {"latent_image": ["20", 1]}}
    return graph


def talking(seed, steps):
    graph = copy.deepcopy(QUICK_START)
    graph["9"]["inputs"] |= {"seed": seed, "steps": steps}
    # Two servers' videos of 64 pixels differ, though the frames as PNG are equal.
    graph["6"]["inputs"]["short_side"] = 128
    return graph


def frames_of(server, outputs):
    with av.open(str(server.saved_file({"12": outputs["12"]}))) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("change", [lambda graph: graph, with_guider], ids=["sampler", "guider"])
def test_a_cancelled_run_computes_one_window_more_at_most(recorded, change):
    later, seconds, window = recorded.cancel_after(change(talking(1, 1000)), "window", 3)
    print(f"{later} windows begun after the interrupt; {seconds:.2f} s to the end, the longest window {window:.2f} s")
    assert later <= 1
    assert seconds < 2 * window + 5

    assert len(frames_of(recorded.server, recorded.server.run(talking(2, 1)))) == 7


def test_cancelled_speech_ends_with_its_30_seconds(recorded):
    graph = {
        "1": {"class_type": "DiceTalkLoader", "inputs": {"checkpoint": "tiny", "weight_dtype": "default"}},
        "2": {"class_type": "EmptyAudio", "inputs": {"duration": 1800.0, "sample_rate": 16000, "channels": 1}},
        "3": {
            "class_type": "DiceTalkAudioFeatures",
            "inputs": {"dicetalk": ["1", 1], "audio": ["2", 0], "start": 0.0, "length": 0.0},
        },
        "4": {"class_type": "PreviewAny", "inputs": {"source": ["3", 1]}},
    }
    later, seconds, _ = recorded.cancel_after(graph, "speech", 2)
    assert later <= 1 and len(recorded.begun("speech")) < 20

    graph["2"]["inputs"]["duration"] = 1.0
    assert "13" in str(recorded.server.run(graph)["4"])


def test_a_killed_server_leaves_no_half_file_and_the_next_run_works(recorded):
    server = recorded.server
    whole = frames_of(server, server.run(talking(7, 1)))
    before = files_below(server.base / "output")
    recorded.calls.unlink(missing_ok=True)
    server.post("/prompt", {"prompt": talking(8, 1000), "client_id": server.client_id})
    recorded.wait_for("window", 3)
    server.process.kill()
    server.process.wait()
    assert files_below(server.base / "output") == before

    server.start()
    again = frames_of(server, server.run(talking(7, 1)))
    assert all(np.array_equal(one, other) for one, other in zip(whole, again, strict=True))
    assert not [name for name in files_below(server.base) if name.endswith(".part")]


def with_video(graph):
    """The graph with DICE-Talk Video in place of VAE Decode and Create Video, and a VAE of ComfyUI's own kind."""
    del graph["10"]
    graph["3"] = {"class_type": "VAELoader", "inputs": {"vae_name": "small_vae.safetensors"}}
    sockets = {"samples": ["9", 0], "vae": ["3", 0], "audio": ["7", 3]}
    graph["11"] = {"class_type": "DiceTalkVideo", "inputs": sockets | {"fps": 12.5, "chunk_size": 10, "context": 4}}
    return graph


@pytest.mark.parametrize(
    ("change", "seed", "words"),
    [
        (lambda graph: graph, 21, "VAEDecode: .*memory"),
        (with_video, 22, "SaveVideo: .*too small for decoding even one frame.*the sampled latent is kept"),
    ],
    ids=["VAE Decode", "DICE-Talk Video"],
)
def test_memory_that_runs_out_while_decoding_costs_no_sampling(recorded, change, seed, words):
    server, graph = recorded.server, change(talking(seed, 2))
    before = files_below(server.base / "output")
    recorded.calls.unlink(missing_ok=True)
    with recorded.decoding("out of memory"), pytest.raises(PromptError, match=f"(?s){words}"):
        server.run(graph)
    sampled = recorded.begun("window")
    assert sampled and files_below(server.base / "output") == before

    assert len(frames_of(server, server.run(graph))) == 7
    assert recorded.begun("window") == sampled, "nothing was sampled again"


def long_clip(server, frames):
    """Load Latent → DICE-Talk Video → Save Video as long/clip_00001_.mp4."""
    latents = torch.randn(frames, 4, 8, 8, generator=torch.Generator().manual_seed(frames))
    tensors = {"latent_tensor": latents, "latent_format_version_0": torch.tensor([])}
    save_file(tensors, server.base / "input" / f"{frames}.latent")
    video = {"samples": ["1", 0], "vae": ["2", 0], "fps": 12.5, "chunk_size": 10, "context": 0}
    saving = {"video": ["3", 0], "filename_prefix": "long/clip", "format": "mp4", "format.codec": "h264"}
    return {
        "1": {"class_type": "LoadLatent", "inputs": {"latent": f"{frames}.latent"}},
        "2": {"class_type": "VAELoader", "inputs": {"vae_name": "small_vae.safetensors"}},
        "3": {"class_type": "DiceTalkVideo", "inputs": video},
        "12": {"class_type": "SaveVideo", "inputs": saving},
    }


def saved_clips(server):
    folder = server.base / "output" / "long"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_a_disk_that_is_full_while_save_video_writes(recorded):
    """A limit on the server's file sizes stands for it: the write fails in the same place."""
    resource = pytest.importorskip("resource", reason="this system sets no limit on file sizes")
    if not hasattr(resource, "prlimit"):
        pytest.skip("only Linux sets a limit for another process")
    server, limit = recorded.server, 200_000
    assert server.log.stat().st_size < limit / 2
    _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (limit, hard))
    with recorded.decoding("noise"):
        try:
            with pytest.raises(PromptError, match=r"SaveVideo: .*clip_00001_\.mp4 cannot be written") as told:
                server.run(long_clip(server, 60))
        finally:
            resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        assert len(str(told.value).strip().splitlines()) == 1
        assert saved_clips(server) == []
        outputs = server.run(long_clip(server, 60))
    assert len(frames_of(server, outputs)) == 60
    file = server.saved_file({"12": outputs["12"]})
    assert file.stat().st_size > limit and saved_clips(server) == ["clip_00001_.mp4"]
    file.unlink()


def test_a_server_killed_while_it_writes_leaves_nothing_for_long(recorded):
    """What it leaves is half a file under another name, which goes when the next one is written."""
    server = recorded.server
    assert saved_clips(server) == []
    with recorded.decoding("noise"):
        server.post("/prompt", {"prompt": long_clip(server, 5000), "client_id": server.client_id})
        deadline = time.monotonic() + SECONDS
        while not any(each.stat().st_size > 100_000 for each in (server.base / "output").rglob("*.part")):
            assert time.monotonic() < deadline, f"no part of a video: {saved_clips(server)}"
            time.sleep(0.02)
        server.process.kill()
        server.process.wait()
    (left,) = saved_clips(server)
    assert left.startswith(f".clip_00001_.mp4.{server.process.pid}-") and left.endswith(".part")

    server.start()
    assert len(frames_of(server, server.run(long_clip(server, 6)))) == 6
    assert saved_clips(server) == ["clip_00001_.mp4"]


def files_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
