"""DICE-Talk Video: the same frames as ComfyUI's own nodes give, decoded when they are taken and not before."""

import io
import time
from fractions import Fraction
from types import SimpleNamespace

import av
import comfy_files
import pytest
import streaming_memory
import torch
from comfy_server import Interrupted
from safetensors.torch import save_file
from small_model import SmallModel, temporal_vae

FRAMES, SIDE, RATE = 14, 8, 16000


@pytest.fixture(scope="module")
def small(pack):
    return SmallModel(pack)


@pytest.fixture(scope="module")
def video_type(small):
    return small.module("nodes.video").LatentVideo


@pytest.fixture(scope="module")
def vae(small, tmp_path_factory):
    """ComfyUI's VAE around a narrow temporal decoder."""
    return temporal_vae(
        small.module("dicetalk.measure.verify").fill, tmp_path_factory.mktemp("vae") / "small.safetensors"
    )


@pytest.fixture(scope="module")
def interp_model(small, comfy_nodes):
    """ComfyUI's INTERP_MODEL with a narrow RIFE."""
    import comfy.model_patcher

    cpu = torch.device("cpu")
    return comfy.model_patcher.CoreModelPatcher(small_rife(small.module("dicetalk.measure.verify").fill), cpu, cpu)


def small_rife(fill):
    from comfy_extras.frame_interpolation_models.ifnet import IFNet

    return fill(IFNet(channels=(8, 8, 8, 8, 8)))


@pytest.fixture(scope="module")
def latents():
    return torch.randn(FRAMES, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def audio():
    """Three seconds, of which the pictures take 1.12."""
    return {"waveform": torch.sin(torch.arange(3 * RATE) * 0.1)[None, None].repeat(1, 2, 1), "sample_rate": RATE}


@pytest.fixture(scope="module")
def make(video_type, latents, vae, audio):
    def make(interp_model=None, vae=vae, **options):
        options = {"latents": latents, "chunk_size": 4, "context": 0} | options
        return video_type(options.pop("latents"), vae, 12.5, audio, interp_model, **options)

    return make


@pytest.fixture(scope="module")
def images(make):
    """The frames of `make()`."""
    return make().get_components().images


def read(file):
    """Frames (N, H, W, 3) in 0..1, their rate, and the samples of a video file."""
    with av.open(file) as container:
        rate = container.streams.video[0].average_rate
        frames = torch.stack(
            [
                torch.from_numpy(frame.reformat(format="rgb24", src_colorspace=1).to_ndarray())
                for frame in container.decode(video=0)
            ]
        )
    if not isinstance(file, str):
        file.seek(0)
    with av.open(file) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0)) if container.streams.audio else 0
    return frames / 255, rate, samples


def test_frames_are_those_of_vae_decode_with_the_same_chunks(images, latents, vae):
    assert torch.equal(images, torch.cat([vae.decode(window) for window in latents.split(4)]))


def test_a_vae_that_is_loaded_in_part_has_all_weights_where_it_computes(small, video_type, tmp_path, monkeypatch):
    """ComfyUI's list of what it loads leaves some out; it moves them only when it loads all."""
    import comfy.model_management

    meta = torch.device("meta")
    vae = temporal_vae(small.module("dicetalk.measure.verify").fill, tmp_path / "small.safetensors")
    for *_, module, _ in vae.patcher._load_list():
        module.to(meta)
    places = [weight.device.type for weight in vae.first_stage_model.parameters()]
    assert 0 < places.count("cpu") < places.count("meta")
    vae.device = vae.output_device = meta
    monkeypatch.setattr(small.module("nodes.video"), "_load", lambda *_: 1)
    monkeypatch.setattr(small.module("nodes.video"), "require_finite_frames", lambda *_: None)
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda device: 1e12)
    frames = video_type(torch.empty(2, 4, SIDE, SIDE), vae, 12.5)._decode(torch.empty(2, 4, SIDE, SIDE))
    assert frames.shape == (2, 8 * SIDE, 8 * SIDE, 3)
    assert {weight.device for weight in vae.first_stage_model.parameters()} == {meta}


def test_an_interpolation_model_that_is_loaded_in_part_has_them_too(small, video_type, vae, interp_model, monkeypatch):
    from comfy_extras.nodes_frame_interpolation import FrameInterpolate

    meta, places = torch.device("meta"), []
    model = interp_model.clone()
    model.model, model.load_device = small_rife(small.module("dicetalk.measure.verify").fill), meta
    for *_, module, _ in model._load_list():
        module.to(meta)
    assert {weight.device.type for weight in model.model.parameters()} == {"cpu", "meta"}

    def execute(model, frames, factor):
        places.extend(weight.device for weight in model.model.parameters())
        return SimpleNamespace(result=[frames])

    monkeypatch.setattr(FrameInterpolate, "execute", execute)
    list(video_type(torch.empty(2, 4, SIDE, SIDE), vae, 12.5, interp_model=model)._doubled([torch.empty(2, 8, 8, 3)]))
    assert places and set(places) == {meta}


def test_borders_do_not_show(small, make, vae):
    decoding = small.module("dicetalk.sampling.decoding")
    latents = torch.randn(34, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    at_once = vae.decode(latents)

    def frames(context):
        return make(latents=latents, chunk_size=10, context=context).get_components().images

    assert (frames(decoding.CONTEXT) - at_once).abs().mean() * 255 < 1 < (frames(0) - at_once).abs().mean() * 255
    chunk = decoding.plan_chunk(10, 34, 10, decoding.context_frames(10, SIDE, SIDE))
    middle = vae.decode(latents[chunk.first : chunk.last])[10 - chunk.first : 20 - chunk.first]
    assert torch.equal(frames(decoding.CONTEXT)[10:20], middle), "as VAE Decode gives for the same frames"


def test_a_vae_without_time_is_decoded_as_vae_decode_does(make, latents, tmp_path):
    import comfy.sd
    import comfy.utils

    comfy_files.write_small_vae(tmp_path / "vae.safetensors")
    vae = comfy.sd.VAE(comfy.utils.load_torch_file(str(tmp_path / "vae.safetensors")), dtype=torch.float32)
    torch.testing.assert_close(make(vae=vae).get_components().images, vae.decode(latents), rtol=0, atol=1e-5)


def test_doubled_frames_are_those_of_frame_interpolate(make, images, interp_model):
    from comfy_extras.nodes_frame_interpolation import FrameInterpolate

    video = make(interp_model)
    assert video.get_frame_count() == 2 * FRAMES and video.get_frame_rate() == 25
    doubled = video.get_components().images
    between = FrameInterpolate.execute(interp_model, images, 2).result[0]
    torch.testing.assert_close(doubled[:-1], between, rtol=0, atol=1e-5)
    assert torch.equal(doubled[-1], doubled[-2]), "the last frame is held, as long as the sound lasts"
    end = video.as_trimmed(1.0).get_components().images
    torch.testing.assert_close(end, doubled[25:], rtol=0, atol=1e-5)
    part = video.as_trimmed(0.12, 0.4)  # from the third frame, which is one between two
    torch.testing.assert_close(part.get_components().images, doubled[3:13], rtol=0, atol=1e-5)


def test_smooth_motion_adds_frames_between_the_decoded_ones(make, images):
    video = make(smooth_motion=True)
    assert video.get_frame_rate() == 25 and make().get_frame_rate() == Fraction(25, 2)
    frames = video.get_components().images
    assert len(frames) == video.get_frame_count()
    assert (frames[: 2 * FRAMES : 2] - images[: len(frames[: 2 * FRAMES : 2])]).abs().max() <= 0.5 / 255 + 1e-6
    assert (frames[1] - frames[0]).abs().max() > 0 and (frames[1] - frames[2]).abs().max() > 0
    part = video.as_trimmed(0.4, 0.24).get_components().images
    assert len(part) == 6 and torch.equal(part[::2], frames[10:16:2])


def test_an_interpolation_model_goes_before_smooth_motion(make, interp_model):
    video, model = make(interp_model, smooth_motion=True), make(interp_model)
    assert video.get_frame_rate() == 25 and torch.equal(video.get_components().images, model.get_components().images)


def test_the_log_says_what_decoding_does(make, caplog, tmp_path):
    caplog.set_level("INFO")
    make(smooth_motion=True).save_to(tmp_path / "out.mp4")
    total = make(smooth_motion=True).get_frame_count()
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("DICE-Talk: dec")]
    assert said[0] == f"DICE-Talk: decoding and writing {total} frames, one of two added between the others"
    assert said[1].startswith(f"DICE-Talk: decoded 8 of {total} frames, about ") and said[1].endswith("left")
    assert said[-1] == f"DICE-Talk: decoded {total} of {total} frames, done"


def test_facts_are_told_without_decoding(make, monkeypatch, vae):
    monkeypatch.setattr(vae.first_stage_model, "decode", None)
    video = make()
    assert video.get_frame_count() == FRAMES and video.get_frame_rate() == Fraction(25, 2)
    assert video.get_duration() == pytest.approx(1.12) and video.get_dimensions() == (64, 64)
    assert video.get_bit_depth() == 8 and video.get_color_space() == "sRGB"
    assert "mp4" in video.get_container_format()
    assert video.get_active_trim_window() == (0, 0)


def test_trimming(make, images, monkeypatch, vae):
    video = make()
    decode, decoded = vae.first_stage_model.decode, []
    monkeypatch.setattr(vae.first_stage_model, "decode", lambda x: decoded.append(len(x)) or decode(x))
    part = video.as_trimmed(0.4, 0.24)
    assert not decoded and part.get_frame_count() == 3 and part.get_duration() == pytest.approx(0.24)
    components = part.get_components()
    assert torch.equal(components.images, images[5:8]) and len(decoded) == 1
    assert components.audio["waveform"].shape[-1] == 0.24 * RATE
    assert torch.equal(components.audio["waveform"], video._audio["waveform"][:, :, 6400:10240])
    again = part.as_trimmed(0.08, 0)
    assert torch.equal(again.get_components().images, images[6:8])
    assert video.as_trimmed(-0.16).get_frame_count() == 2
    assert video.as_trimmed(0.81, 9).get_frame_count() == FRAMES - 11
    assert video.as_trimmed(0.4, 9, strict_duration=True) is None
    assert video.as_trimmed(2.0) is None
    assert video.as_trimmed(0, 1.12, strict_duration=True).get_frame_count() == FRAMES


def test_saving_twice_gives_the_same_file(make, images, tmp_path):
    video = make()
    metadata = {"prompt": {"1": "a"}, "workflow": {"nodes": []}}
    for name in ("one.mp4", "two.mp4"):
        video.save_to(str(tmp_path / name), metadata=metadata, crf=0)
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()
    frames, rate, samples = read(str(tmp_path / "one.mp4"))
    assert rate == Fraction(25, 2) and len(frames) == FRAMES
    assert samples / RATE == pytest.approx(1.12, abs=0.08)
    half = torch.nn.functional.avg_pool2d  # colours are stored at half the size
    stored, given = (half(x.movedim(-1, 1), 2) for x in (frames, images))
    assert torch.corrcoef(torch.stack([stored.flatten(), given.flatten()]))[0, 1] > 0.98
    with av.open(str(tmp_path / "one.mp4")) as container:
        assert container.metadata["prompt"] == '{"1": "a"}'


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("mov,mp4,m4a,3gp,3g2,mj2", "h264", 8)),
        ({"format": "mkv", "codec": "h264", "crf": 30.0}, ("matroska,webm", "h264", 8)),
        ({"format": "webm", "color_space": "HDR"}, ("matroska,webm", "av1", 10)),
    ],
)
def test_save_videos_options_are_honoured_in_memory(make, options, expected):
    buffer = io.BytesIO()
    make().as_trimmed(0, 0.4).save_to(buffer, **options)
    buffer.seek(0)
    with av.open(buffer) as container:
        stream = container.streams.video[0]
        assert (container.format.name, stream.codec.canonical_name, stream.format.components[0].bits) == expected


def test_the_stream_source_is_a_playable_file(make):
    frames, _, _ = read(make().as_trimmed(0, 0.4).get_stream_source())
    assert len(frames) == 5


def test_cancel_takes_effect_within_a_chunk_and_leaves_nothing(make, images, vae, tmp_path):
    import comfy.model_management

    passed = []

    def cancel(module, inputs, output):
        passed.append(True)
        comfy.model_management.interrupt_current_processing(True)

    hook = vae.first_stage_model.decoder.mid.block_1.register_forward_hook(cancel)
    after = []
    last = vae.first_stage_model.decoder.conv_out.register_forward_hook(lambda *_: after.append(True))
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            make().save_to(str(tmp_path / "out.mp4"))
    finally:
        hook.remove()
        last.remove()
        comfy.model_management.interrupt_current_processing(False)
    assert passed and not after and not list(tmp_path.iterdir())
    assert torch.equal(make().get_components().images, images), "the next run"


def test_memory_that_runs_out_halves_the_chunks(make, vae, monkeypatch):
    decode, sizes = vae.first_stage_model.decode, []

    def short(window):
        sizes.append(len(window))
        if len(window) > 9:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(window)

    monkeypatch.setattr(vae.first_stage_model, "decode", short)
    frames = make(chunk_size=12).get_components().images
    assert sizes == [12, 6, 6, 2]
    monkeypatch.undo()
    assert torch.equal(frames, make(chunk_size=6).get_components().images)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_frames_that_are_not_finite_are_an_error_and_no_black_video(small, make, vae, tmp_path, monkeypatch, value):
    decode = vae.first_stage_model.decode
    monkeypatch.setattr(vae.first_stage_model, "decode", lambda window: decode(window).fill_(value))
    with pytest.raises(small.module("dicetalk.errors").InputError, match="The VAE gave values that.*--fp32-vae"):
        make().save_to(str(tmp_path / "out.mp4"))
    assert not list(tmp_path.iterdir())


def test_one_error_when_one_frame_does_not_fit(small, make, vae, tmp_path, monkeypatch):
    def short(window):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(vae.first_stage_model, "decode", short)
    with pytest.raises(small.module("dicetalk.errors").InputError, match="64×64.*smaller pictures.*latent is kept"):
        make().save_to(str(tmp_path / "out.mp4"))
    assert not list(tmp_path.iterdir())


def test_chunks_are_as_small_as_the_estimate_of_memory_asks(small, make, vae, monkeypatch):
    monkeypatch.setattr(small.module("nodes.video"), "frame_bytes", lambda *shape: 10)
    monkeypatch.setattr(vae.patcher, "get_free_memory", lambda device: 55)
    decode, sizes = vae.first_stage_model.decode, []
    monkeypatch.setattr(vae.first_stage_model, "decode", lambda x: sizes.append(len(x)) or decode(x))
    make(chunk_size=10, context=0).get_components()
    assert max(sizes) == 5
    sizes.clear()
    make(chunk_size=10, context=4).get_components()
    assert max(sizes) == 5 and sum(sizes) <= 3 * len(make().get_components().images)


def test_the_released_decoder_takes_no_more_memory_than_is_planned_for(small, comfy_nodes):
    """Counted from shapes, at 512×512 in float32, of which float16 takes half."""
    from comfy.ldm.modules.temporal_ae import VideoDecoder
    from torch._subclasses.fake_tensor import FakeTensorMode

    config = {"ch": 128, "out_ch": 3, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": []}
    config |= {"in_channels": 3, "resolution": 256, "z_channels": 4, "video_kernel_size": [3, 1, 1], "alpha": 0.0}
    counting, video = small.module("dicetalk.sampling.counting"), small.module("nodes.video")
    with FakeTensorMode(), torch.inference_mode():
        decoder = VideoDecoder(**config)
        latents = torch.empty(3, 4, 64, 64)
        with video._blending_in_place(SimpleNamespace(first_stage_model=decoder)), counting.ActivationTracker() as seen:
            decoder(latents)
    planned = small.module("dicetalk.sampling.decoding").frame_bytes(128, 512, 512, 2)
    assert 0.9 * planned <= seen.peak / 3 / 2 <= min(planned, 0.41e9)


def test_a_folder_that_is_gone(small, make, tmp_path):
    with pytest.raises(small.module("dicetalk.errors").InputError, match="does not exist"):
        make().save_to(str(tmp_path / "gone" / "out.mp4"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"samples": {"samples": torch.zeros(1, 4, 3, 8, 8)}}, "samples is a latent of shape"),
        ({"samples": {"samples": torch.zeros(0, 4, 8, 8)}}, "samples is a latent of shape"),
        ({"samples": {"samples": torch.zeros(2, 16, 8, 8)}}, "16 channels"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"audio": {"waveform": torch.zeros(2, 1, 99), "sample_rate": 16000}}, "batch of 2"),
        ({"audio": {"waveform": torch.zeros(1, 99), "sample_rate": 16000}}, "waveform of"),
        ({"audio": {"waveform": torch.zeros(1, 1, 99)}}, "audio is no AUDIO"),
    ],
)
def test_inputs_that_cannot_be_used(small, vae, latents, inputs, words):
    node = small.module("nodes.video").DiceTalkVideo
    good = {"samples": {"samples": latents}, "vae": vae, "fps": 12.5, "chunk_size": 10, "context": 4}
    with pytest.raises(small.module("dicetalk.errors").InputError, match=words):
        node.execute(**good | inputs)


@pytest.fixture(scope="module", params=["node", "pipeline"])
def peaks(request, comfyui):
    """Peak memory: 24 s, which fill what waits between the stages, and 48 s; and 48 s with every frame held."""
    # Each in a process of its own: what an earlier clip's threads leave to their allocators differs from run to run.
    short, long, held = streaming_memory.peaks([24, 48, 48], request.param, side=192, keep=True)
    assert short["frames"] == 600 and long["frames"] == held["frames"] == 1200
    return short, long, held


def grows_by_its_frames(short, long):
    """Whether the longer clip takes a good part of what all its frames would take."""
    return (long["peak"] - long["inputs"]) - (short["peak"] - short["inputs"]) > long["whole"] / 2


def test_a_longer_clip_takes_no_more_memory(peaks):
    """`streaming_memory.py` measures ten minutes."""
    short, long, _ = peaks
    assert not grows_by_its_frames(short, long)


def test_frames_that_are_held_would_be_noticed(peaks):
    short, _, held = peaks
    assert grows_by_its_frames(short, held)


def graph(server, latents, vae="small_vae", between=None, **inputs):
    """Load Latent → DICE-Talk Video → (Trim Video) → Save Video."""
    save_file(
        {"latent_tensor": latents, "latent_format_version_0": torch.tensor([])}, server.base / "input" / "clip.latent"
    )
    between = between or {}
    return {
        "1": {"class_type": "LoadLatent", "inputs": {"latent": "clip.latent"}},
        "2": {"class_type": "VAELoader", "inputs": {"vae_name": f"{vae}.safetensors"}},
        "3": {"class_type": "LoadAudio", "inputs": {"audio": "speech.flac"}},
        "4": {
            "class_type": "DiceTalkVideo",
            "inputs": {"samples": ["1", 0], "vae": ["2", 0], "audio": ["3", 0], "fps": 12.5}
            | {"chunk_size": 4, "context": 1}
            | inputs,
        },
        **between,
        "9": {
            "class_type": "SaveVideo",
            "inputs": {
                "video": ["5" if "5" in between else "4", 0],
                "filename_prefix": "streamed/clip",
                "format": "mp4",
                "format.codec": "h264",
            },
        },
    }


def streamed_files(server):
    folder = server.base / "output" / "streamed"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_save_video_writes_a_playable_file(server, latents, small, comfy_nodes):
    folder = server.base / "models" / "frame_interpolation"
    folder.mkdir(exist_ok=True)
    save_file(small_rife(small.module("dicetalk.measure.verify").fill).state_dict(), folder / "small_rife.safetensors")
    loader = {"class_type": "FrameInterpolationModelLoader", "inputs": {"model_name": "small_rife.safetensors"}}
    outputs = server.run(graph(server, latents, between={"6": loader}, interp_model=["6", 0]))
    file = server.saved_file({"9": outputs["9"]})
    frames, rate, samples = read(str(file))
    assert len(frames) == 2 * FRAMES and rate == 25 and samples
    with av.open(str(file)) as container:
        assert "DiceTalkVideo" in container.metadata["prompt"]


def test_trimmed_by_a_node(server, latents):
    slice_ = {
        "class_type": "Video Slice",
        "inputs": {"video": ["4", 0], "start_time": 0.4, "duration": 0.4, "strict_duration": True},
    }
    outputs = server.run(graph(server, latents, between={"5": slice_}))
    frames, rate, _ = read(str(server.saved_file({"9": outputs["9"]})))
    assert len(frames) == 5 and rate == Fraction(25, 2)


def test_cancelled_on_a_server(server, latents):
    """With the VAE of the released size, which takes seconds for a chunk here."""
    before, interrupted = streamed_files(server), []

    def on_message(message):
        if message["type"] == "executing" and message["data"].get("node") == "9":
            time.sleep(1)
            interrupted.append(time.monotonic())
            server.interrupt()

    with pytest.raises(Interrupted):
        server.run(graph(server, latents.repeat(20, 1, 1, 1), vae="svd_vae", chunk_size=40), on_message=on_message)
    assert time.monotonic() - interrupted[0] < 10
    assert streamed_files(server) == before
    outputs = server.run(graph(server, latents[:2]))
    assert len(read(str(server.saved_file({"9": outputs["9"]})))[0]) == 2
