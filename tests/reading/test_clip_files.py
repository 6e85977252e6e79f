import sys
import tracemalloc

import numpy as np
import pytest
from clips import face, prototype, voice, write_timed, write_video
from PIL import Image
from safetensors.numpy import save_file

from dicetalk.errors import InputError
from dicetalk.reading.clip import BLENDSHAPES, SAMPLE_RATE
from dicetalk.reading.faces import FaceChoice, faces_stream
from dicetalk.reading.files import open_clip
from dicetalk.reading.landmarks import read_landmarks
from dicetalk.reading.streams import stream_audio, stream_frames

SMILE = prototype("6 12", 0.75)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4", voice(2.0), seconds=2.0, fps=5)


def collected(blendshapes):
    times, rows = zip(*blendshapes())
    return np.concatenate(times), np.concatenate(rows)


# Pictures and sound


def test_a_video_is_streamed(video):
    clip = open_clip(video)
    frames = list(clip.frames())
    assert [round(seconds, 2) for seconds, _ in frames] == [round(0.2 * number, 2) for number in range(10)]
    assert frames[0][1].shape == (48, 64, 3) and frames[0][1].dtype == np.uint8
    assert [round(seconds, 2) for seconds, _ in clip.frames(0.5)] == [0.0, 0.6, 1.2, 1.8]
    samples = np.concatenate(list(clip.audio()))
    assert samples.dtype == np.float32 and len(samples) == pytest.approx(2 * SAMPLE_RATE, abs=2000)
    assert clip.seconds == pytest.approx(2.0, abs=0.2) and clip.name == "clip.mp4" and clip.blendshapes is None
    assert len(list(clip.frames())) == 10, "a second stream starts at the beginning again"


def test_a_part_of_a_video_is_streamed(video):
    with video.open("rb") as file:
        frames = list(stream_frames(file, start=0.5, length=1.0))
        samples = np.concatenate(list(stream_audio(file, start=0.5, length=1.0)))
    assert [round(seconds, 2) for seconds, _ in frames] == [0.1, 0.3, 0.5, 0.7, 0.9]
    whole = np.concatenate(list(stream_audio(video)))
    assert len(samples) == pytest.approx(SAMPLE_RATE, abs=2)
    np.testing.assert_allclose(samples[100:-100], whole[8000:][: len(samples)][100:-100], atol=1e-3)


def test_sound_alone_and_a_picture_alone(tmp_path):
    import av

    with av.open(str(tmp_path / "voice.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=44100, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 44100), np.int16), format="s16", layout="stereo")
        frame.rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    Image.new("RGB", (40, 30), "red").save(tmp_path / "face.png")
    sound, picture = open_clip(tmp_path / "voice.wav"), open_clip(tmp_path / "face.png")
    assert sound.frames is None and sum(map(len, sound.audio())) == SAMPLE_RATE
    ((seconds, frame),) = picture.frames()
    assert seconds == 0 and picture.audio is None and (frame == [255, 0, 0]).all()


def test_a_turned_video_is_upright(tmp_path):
    import av

    path, turned = tmp_path / "flat.mp4", tmp_path / "turned.mp4"
    picture = Image.new("RGB", (64, 32), "black")
    picture.paste("white", (0, 0, 32, 32))
    write_video(path, seconds=0.4, picture=picture)
    with av.open(str(path)) as source, av.open(str(turned), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        try:
            stream.set_display_rotation(90)
        except AttributeError:
            pytest.skip("this PyAV writes no rotation")
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    _, frame = next(stream_frames(turned))
    assert frame.shape == (64, 32, 3)


@pytest.mark.parametrize("kind", ["h264", "avi"])
def test_frames_without_good_times_keep_the_rate(tmp_path, kind):
    import av

    path = tmp_path / f"clip.{kind}"
    with av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=25, options={"bf": "3", "b_strategy": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(50):
            picture = np.random.default_rng(number).integers(0, 255, (48, 64, 3), np.uint8)
            target.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        target.mux(stream.encode())
    times = [seconds for seconds, _ in stream_frames(path)]
    np.testing.assert_allclose(times, np.arange(50) / 25, atol=0.2)
    assert np.diff(times).min() > 0.03, "and no frame is dropped"
    assert len(list(stream_frames(path, every=0.5))) == 4
    part = [seconds for seconds, _ in stream_frames(path, start=1.0)]
    assert 20 <= len(part) <= 30 and part[0] < 0.1 and part[-1] == pytest.approx(1.0, abs=0.2)


def test_streams_hold_little(tmp_path):
    path = write_video(tmp_path / "long.mp4", seconds=30, fps=10, picture=Image.new("RGB", (320, 240)))
    tracemalloc.start()
    count = sum(1 for _ in open_clip(path).frames())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 300 and peak < 5e6, "all frames are 69 MB"


@pytest.mark.parametrize("content", [None, b"", b"no video at all"])
def test_unreadable_clips_are_told(tmp_path, content):
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="clip.mp4 cannot be read") as caught:
        open_clip(path)
    assert "\n" not in str(caught.value)


# Landmark files


def write_csv(path, rows, names, times=None):
    head = (["time"] if times is not None else []) + list(names)
    lines = [",".join(head)]
    for number, row in enumerate(rows):
        fields = [f"{times[number]}"] if times is not None else []
        lines.append(",".join([*fields, *("" if np.isnan(value) else f"{value:.4f}" for value in row)]))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def rows():
    return np.stack([SMILE, face(), np.full(52, np.nan, np.float32), SMILE])


def test_landmarks_of_all_kinds_are_the_same(tmp_path, rows):
    np.save(tmp_path / "l.npy", rows)
    save_file({"blendshapes": rows}, tmp_path / "l.safetensors", {"fps": "30"})
    order = list(range(1, 52))[::-1]
    names = [BLENDSHAPES[column][0].upper() + BLENDSHAPES[column][1:] for column in order]  # as Live Link Face has them
    write_csv(tmp_path / "l.csv", np.c_[rows[:, order], rows[:, 0]], [*names, "HeadYaw"], [0, 0.1, 0.2, 0.3])
    save_file(
        {"blendshapes": np.ascontiguousarray(rows[:, order])}, tmp_path / "m.safetensors", {"names": ", ".join(names)}
    )
    for name, expected in (("l.npy", None), ("l.safetensors", 30.0), ("l.csv", 10.0), ("m.safetensors", None)):
        values, times, *_ = read_landmarks(tmp_path / name)
        np.testing.assert_allclose(values[:, 1:], rows[:, 1:], atol=1e-4)
        assert np.isnan(values[2]).all() and values.dtype == np.float32
        assert times is None if expected is None else times == pytest.approx(np.arange(4) / expected)


def test_times_of_landmarks_keep_their_offset_and_their_gaps(tmp_path):
    times = [*np.arange(5, 6, 0.1), *np.arange(14, 15, 0.1)]
    names = BLENDSHAPES[1:]
    path = write_csv(tmp_path / "l.csv", np.tile(SMILE[1:], (20, 1)), names, [f"{each:.1f}" for each in times])
    (tmp_path / "v.wav").write_bytes(wav_of(15 * SAMPLE_RATE))
    read, rows = collected(open_clip(tmp_path / "v.wav", path).blendshapes)
    np.testing.assert_allclose(read, [*times[:10], 6.4, *times[10:]])
    assert np.flatnonzero(np.isnan(rows).all(1)).tolist() == [10]


def test_landmarks_belong_to_a_clip(tmp_path, rows, video):
    np.save(tmp_path / "l.npy", rows)
    times, read = collected(open_clip(video, tmp_path / "l.npy").blendshapes)
    np.testing.assert_allclose(times, [0, 0.2, 0.4, 0.6], atol=1e-6)
    np.testing.assert_array_equal(read, rows)


@pytest.mark.parametrize(
    "name, write, told",
    [
        ("l.txt", lambda path: path.write_text("x"), "read from .npy, .csv, .safetensors"),
        ("l.npy", lambda path: None, "no such file"),
        ("l.npy", lambda path: path.write_bytes(b"x"), "cannot be read as landmarks"),
        ("l.npy", lambda path: np.save(path, np.array([{}])), "cannot be read as landmarks"),
        ("l.npy", lambda path: np.save(path, np.zeros((4, 51))), r"\(frames, 52\) numbers"),
        ("l.npy", lambda path: np.save(path, np.zeros((0, 52))), r"\(frames, 52\) numbers"),
        ("l.csv", lambda path: path.write_text(""), "numbers are needed|lacks the blendshapes"),
        ("l.csv", lambda path: path.write_text("jawOpen\n1\n"), "lacks the blendshapes browDownLeft"),
        ("l.csv", lambda path: path.write_text("jawOpen,jawLeft\n1,x\n"), "line 2: could not convert"),
        ("l.csv", lambda path: path.write_text("jawOpen,jawLeft\n1\n"), "line 2 has 1 fields"),
        ("l.csv", lambda path: path.write_text("time,jawOpen\n1,1\n1,1\n"), "do not increase"),
        ("l.safetensors", lambda path: save_file({"other": np.zeros(3)}, path), "no tensor named blendshapes"),
        (
            "l.safetensors",
            lambda path: save_file({"blendshapes": np.zeros((2, 52))}, path, {"fps": "0"}),
            "fps is 0",
        ),
        (
            "l.safetensors",
            lambda path: save_file({"blendshapes": np.zeros((2, 52))}, path, {"fps": "1e-300"}),
            "fps is 1e-300 in its metadata: 0.1 to 1000",
        ),
        ("l.csv", lambda path: path.write_text("time,jawOpen\n-1,1\n1,1\n"), "at -1 s"),
        ("l.csv", lambda path: path.write_text("time,jawOpen\n1,1\n1e12,1\n"), "at 1e[+]12 s"),
    ],
)
def test_bad_landmarks_are_told(tmp_path, name, write, told):
    path = tmp_path / name
    write(path)
    with pytest.raises(InputError, match=told) as caught:
        read_landmarks(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_landmarks_without_a_rate_need_pictures(tmp_path, rows):
    np.save(tmp_path / "l.npy", rows)
    Image.new("RGB", (8, 8)).save(tmp_path / "p.png")
    assert open_clip(tmp_path / "p.png", tmp_path / "l.npy").blendshapes
    (tmp_path / "v.wav").write_bytes(wav_of(800))
    with pytest.raises(InputError, match="does not say its frames a second"):
        open_clip(tmp_path / "v.wav", tmp_path / "l.npy")


def wav_of(samples):
    import io
    import wave

    file = io.BytesIO()
    with wave.open(file, "wb") as target:
        target.setnchannels(1)
        target.setsampwidth(2)
        target.setframerate(SAMPLE_RATE)
        target.writeframes(bytes(2 * samples))
    return file.getvalue()


def test_mediapipe_is_asked_for_only_when_it_is_needed(tmp_path, video, monkeypatch):
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    open_clip(video)
    with pytest.raises(InputError, match="needs the package mediapipe"):
        open_clip(video, face_landmarker=tmp_path / "face_landmarker.task")
    with pytest.raises(InputError, match="not both"):
        open_clip(video, landmarks="a.npy", face_landmarker="b.task")


# Which face


LARGE, SMALL = (0, 0, 10, 10), (20, 0, 26, 6)


def test_the_largest_face_is_followed_even_when_another_grows():
    choice = FaceChoice()
    assert choice.choose(0.0, [SMALL, LARGE]) == 1
    assert choice.choose(0.04, [(1, 0, 10, 9), (18, 0, 40, 22)]) == 0
    assert choice.notes() == ["2 frames show several faces; the largest was followed."]


def test_a_lost_face_is_waited_for_and_then_given_up():
    choice = FaceChoice()
    choice.choose(0.0, [LARGE, SMALL])
    assert choice.choose(0.2, [SMALL]) is None, "the other one is no answer to a gap of the detector"
    assert choice.choose(0.3, [SMALL, LARGE]) == 1
    assert choice.choose(0.5, []) is None
    assert choice.choose(0.9, [SMALL]) == 0, "the scene has changed"


def test_faces_become_rows():
    smile = dict(zip(BLENDSHAPES, SMILE.tolist()))
    frown = {"browDownLeft": 1.0}
    frames = [(0.0, [(SMALL, frown), (LARGE, smile)]), (0.04, []), (1.5, [(SMALL, frown)])]
    stream, notes = faces_stream(lambda: iter(frames))
    assert notes() == []
    times, rows = collected(stream)
    assert notes() == ["A frame shows several faces; the largest was followed."]
    collected(stream)
    assert len(notes()) == 1 and "A frame" in notes()[0], "a stream that is opened again counts anew"
    assert times.tolist() == [0.0, 0.04, 1.5]
    np.testing.assert_allclose(rows[0], SMILE, rtol=1e-6)
    assert np.isnan(rows[1]).all() and rows[2].sum() == 1


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize(
    "tracks, silent",
    [
        ({"pictures": 0.0, "sound": 1.5}, (0.05, 1.4)),
        ({"pictures": 1.0, "sound": 0.0}, (None, None)),
        ({"pictures": 0.0, "sound": 0.0, "gap": (0.5, 1.5)}, (0.6, 1.4)),
    ],
    ids=["sound starts late", "pictures start late", "sound with a gap"],
)
def test_a_voice_is_heard_at_its_time(tmp_path, name, tracks, silent):
    codec = "libopus" if "gap" in tracks else "aac"
    path = write_timed(tmp_path / name, codec=codec, **tracks)
    heard = np.concatenate(list(stream_audio(path)))
    loud = np.abs(heard) > 0.05
    begins = loud.argmax() / SAMPLE_RATE
    if "gap" in tracks or tracks["pictures"]:
        assert begins < 0.05
    else:
        assert begins == pytest.approx(1.5, abs=0.05)
    if silent[0] is not None:
        assert not loud[int(silent[0] * SAMPLE_RATE) : int(silent[1] * SAMPLE_RATE)].any()
        assert loud[int((silent[1] + 0.2) * SAMPLE_RATE) :].any()
