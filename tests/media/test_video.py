import errno
import io
import json
import os
import shutil
import subprocess
import sys
import textwrap
import wave
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from dicetalk.errors import InputError
from dicetalk.media.audio import read_sound
from dicetalk.media.container import read_metadata
from dicetalk.media.frame_rate import double_frame_rate
from dicetalk.media.video import Encoding, write_video


def moving_frames(count, size=64, step=2):
    """Smooth blobs that drift to the right by `step` pixels a frame."""
    rng = np.random.RandomState(0)
    picture = Image.fromarray(rng.randint(0, 255, (8, 8, 3)).astype(np.uint8)).resize((size, size), Image.BICUBIC)
    return [np.roll(np.asarray(picture), step * i, axis=1) for i in range(count)]


def as_rgb(frame):
    """Decoded as BT.709, which older releases of PyAV do not take from the file's tags by themselves."""
    return frame.reformat(format="rgb24", src_colorspace=1, src_color_range=1, dst_color_range=2).to_ndarray()


def decode(path):
    """The frames, the samples (channels, n) and the container's facts of a video file."""
    with av.open(str(path)) as container:
        facts = {
            "fps": container.streams.video[0].average_rate,
            "codec": container.streams.video[0].codec_context.name,
            "format": container.streams.video[0].format.name,
            "seconds": float(container.streams.video[0].duration * container.streams.video[0].time_base),
        }
        frames = [as_rgb(frame) for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return frames, None, facts
        stream = container.streams.audio[0]
        facts |= {
            "audio codec": stream.codec_context.name,
            "audio rate": stream.rate,
            "audio seconds": float(stream.duration * stream.time_base),
        }
        samples = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    return frames, samples, facts


def psnr(a, b):
    return 10 * np.log10(255**2 / max(np.mean((a.astype(np.float64) - b) ** 2), 1e-9))


@pytest.mark.skipif(os.name == "nt", reason="Windows takes no such names")
def test_a_name_that_looks_like_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video("12:30.mp4", moving_frames(2), 25, metadata={"comment": "here"})
    assert os.listdir(tmp_path) == ["12:30.mp4"]
    assert read_metadata("12:30.mp4")["comment"] == "here"


@pytest.mark.parametrize(("fps", "count"), [(Fraction(25, 2), 25), (12.5, 1), (25, 49), (25, 7)])
@pytest.mark.parametrize("seconds", [0.01, 2.0, 9.0])
def test_pictures_and_sound_have_the_same_length(tmp_path, fps, count, seconds):
    path = tmp_path / "out.mp4"
    samples = np.sin(np.arange(int(16000 * seconds)) * 0.1) * 0.5

    assert write_video(path, moving_frames(count), fps, samples, 16000) == count

    frames, decoded, facts = decode(path)
    assert len(frames) == count
    assert (facts["codec"], facts["format"], facts["fps"]) == ("h264", "yuv420p", Fraction(fps))
    assert (facts["audio codec"], facts["audio rate"]) == ("aac", 16000)
    assert facts["seconds"] == pytest.approx(count / float(fps), abs=1e-3)
    assert abs(facts["audio seconds"] - facts["seconds"]) <= 1 / float(fps)
    assert abs(decoded.shape[1] / 16000 - facts["seconds"]) <= 1 / float(fps)
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_pictures_and_sound_survive(tmp_path):
    given = moving_frames(10, size=128)
    tone = np.sin(np.arange(12800) * 2 * np.pi * 440 / 16000).astype(np.float32) * 0.5

    write_video(tmp_path / "out.mp4", given, 12.5, tone)

    frames, samples, _ = decode(tmp_path / "out.mp4")
    assert min(psnr(a, b) for a, b in zip(frames, given)) > 32
    middle = samples[0, 4000:8000]
    assert 0.3 < np.sqrt(np.mean(middle**2)) < 0.4  # 0.5 / sqrt(2)
    assert np.abs(np.fft.rfft(middle)).argmax() == 110  # 440 Hz in 4000 samples at 16 kHz


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 150, 120)])
def test_colours_survive_and_are_tagged(tmp_path, colour):
    write_video(tmp_path / "out.mp4", [np.full((64, 64, 3), colour, np.uint8)] * 3, 12.5)

    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_range) == (1, 1)  # BT.709, limited
        decoded = as_rgb(frame)
    assert np.abs(decoded.astype(int) - colour).max() <= 4


def test_floats_pil_and_uint8_give_the_same_file(tmp_path):
    given = moving_frames(3)
    kinds = {
        "uint8": given,
        "float": [frame.astype(np.float32) / 255 for frame in given],
        "pil": [Image.fromarray(frame) for frame in given],
    }
    for name, frames in kinds.items():
        write_video(tmp_path / name, frames, 12.5)
    assert len({(tmp_path / name).read_bytes() for name in kinds}) == 1


def test_the_same_frames_always_give_the_same_file(tmp_path):
    given = moving_frames(11, size=192)
    files = set()
    for _ in range(6):
        list(double_frame_rate(given))  # leaves other things in memory
        write_video(tmp_path / "out.mp4", given, 25, np.zeros(16000))
        files.add((tmp_path / "out.mp4").read_bytes())
    assert len(files) == 1


def test_floats_outside_the_range_and_nan_are_clipped(tmp_path):
    frame = np.full((64, 64, 3), 7.0)
    frame[:32] = np.nan
    write_video(tmp_path / "out.mp4", [frame], 12.5, np.full(16000, np.inf))
    (decoded,), samples, _ = decode(tmp_path / "out.mp4")
    assert decoded[:30].max() <= 4
    assert decoded[34:].min() >= 251
    assert np.isfinite(samples).all()


def test_stereo_and_odd_sample_rates(tmp_path):
    sound = np.stack([np.sin(np.arange(96000) * 0.01), np.zeros(96000)])
    write_video(tmp_path / "out.mp4", moving_frames(10), 12.5, sound, 96001)
    _, samples, facts = decode(tmp_path / "out.mp4")
    assert facts["audio rate"] == 48000
    assert abs(samples.shape[1] / 48000 - 0.8) <= 0.08
    assert np.abs(samples[0]).max() > 0.5
    assert np.abs(samples[1]).max() < 0.05


def test_sound_in_blocks_is_the_same_as_in_one(tmp_path):
    sound = np.sin(np.arange(12000) * 0.05).astype(np.float32)
    write_video(tmp_path / "one.mp4", moving_frames(10), 12.5, sound)
    write_video(tmp_path / "blocks.mp4", moving_frames(10), 12.5, iter(np.split(sound, [1, 700, 9000])))
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "blocks.mp4").read_bytes()


@pytest.mark.parametrize(("rate", "channels", "kept"), [(44100, 2, 44100), (16000, 1, 16000), (37800, 6, 48000)])
def test_sound_is_read_as_it_is(tmp_path, rate, channels, kept):
    seconds = np.arange(2 * rate) / rate
    tone = 0.5 * np.sin(2 * np.pi * 1000 * seconds) * (seconds >= 1)
    with wave.open(str(tmp_path / "in.wav"), "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        file.writeframes((np.tile(tone, (channels, 1)).T * 32767).astype("<i2").tobytes())

    read_rate, blocks = read_sound(tmp_path / "in.wav", start=0.5)

    sound = np.concatenate(list(blocks), axis=1)
    assert (read_rate, len(sound)) == (kept, min(channels, 2))
    assert sound.shape[1] == pytest.approx(1.5 * kept, abs=kept * 0.01)
    quiet, loud = sound[:, : int(0.48 * kept)], sound[:, int(0.52 * kept) : int(1.4 * kept)]
    assert np.abs(quiet).max() < 0.01 < 0.3 < np.abs(loud).max()
    assert np.abs(np.fft.rfft(loud[0])).argmax() * kept / loud.shape[1] == pytest.approx(1000, abs=2)


def test_metadata_is_read_back(tmp_path):
    settings = {"emotion": "happy:1.3", "seed": 7, "übung": [1.5, None]}
    metadata = {"comment": "made by a test", "dicetalk": settings}
    write_video(tmp_path / "out.mp4", moving_frames(2), 12.5, metadata=metadata)
    metadata = read_metadata(tmp_path / "out.mp4")
    assert metadata["comment"] == "made by a test"
    assert json.loads(metadata["dicetalk"]) == settings


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, MemoryError])
def test_an_interrupted_run_leaves_the_old_file_and_nothing_else(tmp_path, error):
    (tmp_path / "out.mp4").write_text("older video")

    def frames():
        yield from moving_frames(5)
        raise error

    with pytest.raises(error):
        write_video(tmp_path / "out.mp4", frames(), 12.5, np.zeros(16000))
    assert os.listdir(tmp_path) == ["out.mp4"]
    assert (tmp_path / "out.mp4").read_text() == "older video"


def test_frames_are_written_as_they_come(tmp_path):
    alive = []

    def frames():
        for number in range(200):
            frame = np.full((64, 64, 3), number, np.uint8)
            alive.append(frame.__array_interface__["data"][0])
            yield frame
            del frame

    write_video(tmp_path / "out.mp4", frames(), 25)
    assert len(set(alive)) < 100, "the memory of earlier frames was never used again"


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([], "no frames"),
        ([np.zeros((63, 64, 3), np.uint8)], "64×63"),
        ([np.zeros((64, 65, 3), np.uint8)], "65×64"),
        ([np.zeros((64, 64), np.uint8)], "(64, 64)"),
        ([np.zeros((64, 64, 3), np.uint8), np.zeros((64, 96, 3), np.uint8)], "96×64"),
    ],
)
def test_unusable_frames(tmp_path, frames, words):
    with pytest.raises(InputError, match="(?s).*" + words.replace("(", r"\(").replace(")", r"\)")):
        write_video(tmp_path / "out.mp4", frames, 12.5)
    assert os.listdir(tmp_path) == []


def test_too_many_channels(tmp_path):
    with pytest.raises(InputError, match="one, two or six channels"):
        write_video(tmp_path / "out.mp4", moving_frames(1), 12.5, np.zeros((8, 100)))
    assert os.listdir(tmp_path) == []


def test_missing_folder_and_folder_as_file(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        write_video(tmp_path / "nowhere" / "out.mp4", moving_frames(1), 12.5)
    with pytest.raises(InputError, match="is a folder"):
        write_video(tmp_path, moving_frames(1), 12.5)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="no permission"):
        write_video(tmp_path / "out.mp4", moving_frames(1), 12.5)


def test_a_folder_that_goes_while_it_is_written_to(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()

    def frames():
        yield from moving_frames(100)
        shutil.rmtree(folder)

    with pytest.raises(InputError, match=r"out\.mp4 cannot be written: its folder is gone\."):
        write_video(folder / "out.mp4", frames(), 12.5)
    assert not folder.exists()


def test_a_disk_that_is_full_at_the_last_moment(tmp_path, monkeypatch):
    def fsync(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("dicetalk.files.os.fsync", fsync)
    with pytest.raises(InputError, match=r"out\.mp4 cannot be written: the disk is full\."):
        write_video(tmp_path / "out.mp4", moving_frames(5), 12.5)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "statvfs"), reason="needs a limit on file sizes")
def test_full_disk(tmp_path):
    """A limit on file sizes stands for the full disk: the write fails in the same place."""
    script = """
        import resource, signal, sys
        import numpy as np
        from dicetalk.errors import InputError
        from dicetalk.media.video import write_video
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
        noise = np.random.RandomState(0)
        try:
            write_video(sys.argv[1], (noise.randint(0, 255, (128, 128, 3)) / 255 for _ in range(30)), 12.5)
        except InputError as error:
            print(error)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "out.mp4")], capture_output=True, text=True
    )
    assert "cannot be written" in run.stdout, run.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7, 25])
def test_doubling_keeps_the_given_frames_and_counts(count):
    given = moving_frames(count)
    doubled = list(double_frame_rate(given))
    assert len(doubled) == 2 * count
    assert all(np.array_equal(*end) for end in [doubled[-2:]] * bool(count)), "the last frame is held"
    assert all(np.array_equal(a, b) for a, b in zip(doubled[::2], given))


def test_frames_between_follow_the_motion():
    truth = moving_frames(13, size=128, step=3)
    doubled = list(double_frame_rate(truth[::2]))
    assert len(doubled) == 14
    for position in range(1, 13, 2):
        blend = (truth[position - 1].astype(int) + truth[position + 1]) / 2
        between = slice(24, 104)  # away from the edges, where the test picture wraps around
        quality = psnr(doubled[position][:, between], truth[position][:, between])
        assert quality > 35
        assert quality > psnr(blend[:, between], truth[position][:, between]) + 6


def test_a_cut_is_not_repeated():
    """Scene detection would give a copy of a neighbour instead of a frame between."""
    dark, light = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)
    doubled = list(double_frame_rate([dark] * 3 + [light] * 3))
    assert 64 < doubled[5].mean() < 192


def test_doubling_streams():
    taken = []

    def frames():
        for number, frame in enumerate(moving_frames(20)):
            taken.append(number)
            yield frame

    doubled = double_frame_rate(frames())
    next(doubled)
    assert len(taken) <= 4


def test_doubling_small_or_changing_frames():
    with pytest.raises(InputError, match="too small"):
        list(double_frame_rate([np.zeros((16, 64, 3), np.uint8)] * 3))
    with pytest.raises(InputError, match="one size"):
        list(double_frame_rate([np.zeros((64, 64, 3), np.uint8), np.zeros((64, 96, 3), np.uint8)]))


@pytest.mark.parametrize(
    ("encoding", "codecs", "color"),
    [
        (Encoding("mkv", crf=None, color="sRGB"), ("h264", "aac"), (1, 1, 13)),
        (Encoding("webm", "av1", crf=30, color="HDR", bit_depth=10), ("av1", "opus"), (9, 9, 18)),
        (Encoding("mp4", "av1", crf=0, color="HDR PQ", bit_depth=10), ("av1", "aac"), (9, 9, 16)),
    ],
)
@pytest.mark.parametrize("in_memory", [False, True])
def test_other_encodings(tmp_path, encoding, codecs, color, in_memory):
    target = io.BytesIO() if in_memory else tmp_path / "out"
    sound = np.sin(np.arange(44100) * 0.05)
    assert write_video(target, moving_frames(13), 12.5, sound, 44100, {"seed": 7}, encoding) == 13
    with av.open(target if not in_memory else io.BytesIO(target.getvalue())) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        context = video.codec_context
        assert (context.codec.canonical_name, audio.codec_context.name) == codecs
        assert (context.colorspace, context.color_primaries, context.color_trc) == color
        assert context.format.components[0].bits == encoding.bit_depth
        assert {name.lower(): value for name, value in container.metadata.items()}["seed"] == "7"
        assert sum(1 for _ in container.decode(video)) == 13


@pytest.mark.skipif(not sys.platform.startswith("linux") or os.geteuid(), reason="only Linux's superuser may do it")
def test_av1_makes_no_thread_a_real_time_one(tmp_path):
    """SVT-AV1 would: a server that wrote one such video, and all that it starts, would come before everything else."""

    def priorities():
        return {os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")}

    def frames():
        for frame in moving_frames(3):
            seen.append(priorities())
            yield frame

    seen, before = [], os.sched_getscheduler(0)
    try:
        write_video(tmp_path / "out.mp4", frames(), 12.5, encoding=Encoding(codec="av1"))
        assert seen == 3 * [{os.SCHED_OTHER}] and os.sched_getscheduler(0) == before
    finally:
        os.sched_setscheduler(0, before, os.sched_param(0))  # or the tests after this one would have it


def test_a_buffer_is_left_as_it_was_when_writing_fails():
    buffer = io.BytesIO(b"before")
    buffer.seek(6)

    def frames():
        yield from moving_frames(30)
        raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        write_video(buffer, frames(), 12.5)
    assert buffer.getvalue() == b"before"
