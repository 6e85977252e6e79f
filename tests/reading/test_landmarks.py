"""Files of landmarks as people's tools write them, and where in a clip their rows belong."""

import numpy as np
import pytest
from clips import face, prototype, voice, write_timed, write_video

from dicetalk.errors import InputError
from dicetalk.reading.clip import BLENDSHAPES, SAMPLE_RATE
from dicetalk.reading.face_actions import features, probabilities, without_rest
from dicetalk.reading.files import open_clip
from dicetalk.reading.landmarks import read_landmarks
from dicetalk.reading.streams import frame_times, stream_frames

SMILE = prototype("6 12", 0.75)
LIVE_LINK = [name[0].upper() + name[1:] for name in BLENDSHAPES[1:]]
NAMES = ("angry", "contempt", "disgusted", "fear", "happy", "neutral", "sad", "surprised")


def table(path, names, rows, mark=","):
    """A CSV file of rows, lists of anything; NaN is an empty field."""
    lines = [mark.join(names)]
    for row in rows:
        fields = ["" if isinstance(each, float) and np.isnan(each) else str(each) for each in row]
        lines.append(mark.join(fields))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def smiles(count, before=lambda number: []):
    return [[*before(number), *SMILE[1:].tolist()] for number in range(count)]


def times_of(clip):
    times, rows = zip(*clip.blendshapes())
    return np.concatenate(times), np.concatenate(rows)


@pytest.fixture(scope="module")
def two_seconds(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=2.0, fps=10)


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    import wave

    path = tmp_path_factory.mktemp("clip") / "voice.wav"
    with wave.open(str(path), "wb") as target:
        target.setnchannels(1)
        target.setsampwidth(2)
        target.setframerate(SAMPLE_RATE)
        target.writeframes((voice(3.0) * 32767).astype("<i2").tobytes())
    return path


# Where rows belong


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_rows_of_a_video_with_changing_steps_are_at_its_frames(tmp_path, suffix):
    """90 frames at 30 a second, then 20 at 2 a second: row 90 is at 3 s, and row 91 at 3.5 s."""
    steps = [1 / 30] * 90 + [0.5] * 20
    path = write_timed(tmp_path / f"slides.{suffix}", steps=steps)
    np.save(tmp_path / "l.npy", np.tile(SMILE, (110, 1)))
    times, _ = times_of(clip := open_clip(path, tmp_path / "l.npy"))
    np.testing.assert_allclose(times, np.cumsum([0, *steps[:-1]]), atol=0.002)
    np.testing.assert_allclose(times, [seconds for seconds, _ in stream_frames(path)], atol=1e-6)
    assert clip.notes() == []


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "ts"])
@pytest.mark.parametrize("pictures, sound", [(0.0, None), (1.0, 0.0), (0.0, 1.5)])
def test_rows_are_at_the_frames_of_every_container(tmp_path, suffix, pictures, sound):
    path = write_timed(tmp_path / f"clip.{suffix}", pictures, sound, b_frames=3)
    np.save(tmp_path / "l.npy", np.tile(SMILE, (20, 1)))
    times, _ = times_of(open_clip(path, tmp_path / "l.npy"))
    assert times[0] == pytest.approx(pictures, abs=0.1)
    np.testing.assert_allclose(np.diff(times), 0.1, atol=0.002)


@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi", "h264"])
@pytest.mark.parametrize("b_frames", [0, 3])
def test_times_of_frames_are_those_of_the_decoded_ones(tmp_path, kind, b_frames):
    path = write_timed(tmp_path / f"clip.{kind}", b_frames=b_frames)
    decoded = [seconds for seconds, _ in stream_frames(path)]
    np.testing.assert_allclose(frame_times(path), decoded, atol=1e-6)
    part = [seconds for seconds, _ in stream_frames(path, start=0.5, length=1.0)]
    np.testing.assert_allclose(frame_times(path, 0.5, 1.0), part, atol=1e-6)


@pytest.mark.parametrize("column", ["frame", "Frame", "frame_index", "frame_idx", "frame_num"])
def test_a_column_of_frames_is_read(tmp_path, two_seconds, column):
    path = table(tmp_path / "l.csv", [column, *BLENDSHAPES[1:]], smiles(4, lambda number: [5 * number]))
    clip = open_clip(two_seconds, path)
    assert times_of(clip)[0] == pytest.approx([0.0, 0.5, 1.0, 1.5])


def test_frames_that_are_counted_from_one(tmp_path, two_seconds):
    path = table(tmp_path / "l.csv", ["frame", *BLENDSHAPES[1:]], smiles(20, lambda number: [1 + number]))
    assert times_of(open_clip(two_seconds, path))[0] == pytest.approx(np.arange(20) / 10)


@pytest.mark.parametrize(
    "column, unit",
    [
        *(("time", 1), ("timestamp", 1), ("timestamp", 1000), ("time", 1e6), ("timestamp_ms", 1000)),
        *(("time_ms", 1000), ("Time (ms)", 1000), ("timestamp_us", 1e6), ("seconds", 1)),
        *(("timestamp_ns", 1e9), ("timestamp", 1e9), ("pts_time", 1), ("elapsed", 1000)),
    ],
)
def test_times_are_recognised_by_name_and_by_size(tmp_path, two_seconds, column, unit):
    before = lambda number: [round(number * unit / 10, 3)]  # noqa: E731
    path = table(tmp_path / "l.csv", [column, *BLENDSHAPES[1:]], smiles(20, before))
    clip = open_clip(two_seconds, path)
    assert times_of(clip)[0] == pytest.approx(np.arange(20) / 10) and clip.notes() == []


@pytest.mark.parametrize("start", [1.7e12, 53211.3])
def test_times_of_a_browser_count_from_their_first_row(tmp_path, two_seconds, start):
    """Date.now() and performance.now() are milliseconds from long ago."""
    path = table(tmp_path / "l.csv", ["timestamp", *BLENDSHAPES[1:]], smiles(20, lambda number: [start + 100 * number]))
    clip = open_clip(two_seconds, path)
    assert times_of(clip)[0] == pytest.approx(np.arange(20) / 10, abs=1e-6)
    assert "first row was put at the clip's start" in " ".join(clip.notes())


@pytest.mark.parametrize("rate", [60, 30])
def test_a_take_of_live_link_face_lies_beside_its_sound(tmp_path, speech, rate):
    """HH:MM:SS:FF.sub; rows are missing now and then, and those of two fields have no face."""
    lines = [",".join(["Timecode", "BlendShapeCount", *LIVE_LINK, "TongueOut", "HeadYaw"])]
    expected, seen = [], []
    for number in range(3 * rate):
        if number % 17 == 5:
            continue
        seconds, frame = divmod(number + rate // 2, rate)
        code = (
            f"23:59:{58 + seconds:02d}:{frame:02d}.250" if seconds < 2 else f"00:00:{seconds - 2:02d}:{frame:02d}.250"
        )
        with_face = number % 50 < 40
        values = ["61", *(f"{value:.4f}" for value in SMILE[1:]), "0.0", "0.1"] if with_face else ["0"]
        lines.append(",".join([code, *values]))
        expected.append(number / rate)
        seen.append(with_face)
    (tmp_path / "take.csv").write_text("\n".join(lines) + "\n")
    clip = open_clip(speech, tmp_path / "take.csv")
    times, rows = times_of(clip)
    np.testing.assert_allclose(times, expected, atol=1e-6)
    assert (~np.isnan(rows[:, 1])).tolist() == seen
    assert clip.notes() == []


# Where the ends lie apart


def test_ends_that_lie_apart_are_told_once(tmp_path, two_seconds):
    path = table(tmp_path / "l.csv", ["time", *BLENDSHAPES[1:]], smiles(10, lambda number: [number / 10]))
    notes = open_clip(two_seconds, path).notes()
    assert len(notes) == 1 and "ends at 1.00 s, and the clip at 2.00 s" in notes[0]
    np.save(tmp_path / "l.npy", np.tile(SMILE, (40, 1)))
    notes = open_clip(two_seconds, tmp_path / "l.npy").notes()
    assert len(notes) == 1 and "ends at 4.00 s, and the clip at 2.00 s, 40 rows for 20 frames" in notes[0]


def test_landmarks_of_another_clip_are_an_error(tmp_path, two_seconds):
    path = table(tmp_path / "l.csv", ["time", *BLENDSHAPES[1:]], smiles(90, lambda number: [10 + number / 10]))
    with pytest.raises(InputError, match="10.00 to 18.90 s, and the clip ends at 2.00 s"):
        open_clip(two_seconds, path)


# How files are written


@pytest.mark.parametrize("mark, decimal", [(";", "."), (";", ","), ("\t", ".")])
def test_other_marks_between_fields(tmp_path, mark, decimal):
    rows = [[str(each).replace(".", decimal) for each in row] for row in smiles(3, lambda number: [number / 10])]
    values, times, *_ = read_landmarks(table(tmp_path / "l.csv", ["time", *BLENDSHAPES[1:]], rows, mark))
    np.testing.assert_allclose(values[:, 1:], np.tile(SMILE[1:], (3, 1)), atol=1e-6)
    assert times == pytest.approx([0, 0.1, 0.2])


@pytest.mark.parametrize(
    "spelled",
    [
        lambda name: f"BS_{name[0].upper()}{name[1:]}",
        lambda name: name.replace("Left", "_L").replace("Right", "_R") if name not in OF_THE_MOUTH else name,
        lambda name: "".join(f"_{letter}" if letter.isupper() else letter for letter in name),
        lambda name: " " + name,
    ],
    ids=["BS_JawOpen", "mouthSmile_L", "jaw_Open", "with a space"],
)
def test_names_of_blendshapes_in_other_spellings(tmp_path, spelled):
    path = table(tmp_path / "l.csv", [spelled(name) for name in BLENDSHAPES[1:]], smiles(2))
    np.testing.assert_allclose(read_landmarks(path).values[:, 1:], np.tile(SMILE[1:], (2, 1)), atol=1e-6)


OF_THE_MOUTH = ("jawLeft", "jawRight", "mouthLeft", "mouthRight")


def test_of_several_faces_in_a_frame_the_largest_is_followed(tmp_path, two_seconds):
    """As py-feat writes them: a row for each face, with its box."""
    names = ["frame", "FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight", *BLENDSHAPES[1:]]
    rows = []
    for number in range(20):
        rows.append([number, 10, 10, 20, 20, *face(AU4=0.8)[1:].tolist()])
        rows.append([number, 100, 10, 60, 60, *SMILE[1:].tolist()])
    clip = open_clip(two_seconds, table(tmp_path / "l.csv", names, rows))
    times, read = times_of(clip)
    np.testing.assert_allclose(read[:, 1:], np.tile(SMILE[1:], (20, 1)), atol=1e-6)
    assert times == pytest.approx(np.arange(20) / 10)
    assert clip.notes() == ["20 frames show several faces; the largest was followed."]


def test_of_several_faces_with_numbers_the_longest_seen_is_followed(tmp_path, two_seconds):
    rows = [[number, 1, *SMILE[1:].tolist()] for number in range(20)]
    rows += [[number, 0, *face(AU4=0.8)[1:].tolist()] for number in range(5)]
    rows.sort(key=lambda row: row[:2])
    path = table(tmp_path / "l.csv", ["frame", "face_id", *BLENDSHAPES[1:]], rows)
    clip = open_clip(two_seconds, path)
    assert len(times_of(clip)[0]) == 20 and (times_of(clip)[1][:, BLENDSHAPES.index("browDownLeft")] == 0).all()
    assert "1, which is seen the longest" in clip.notes()[0]


# Values


def emotion_of(values):
    shares = probabilities(without_rest(features(values), 0.5)).mean(0)
    return NAMES[int(shares.argmax())]


@pytest.mark.parametrize("kind", ["csv", "npy"])
def test_percent_is_recognised(tmp_path, kind):
    """Unity's and Maya's blend weights run from 0 to 100: a calm face is calm."""
    random = np.random.default_rng(0)
    calm = np.clip(random.normal(0.03, 0.03, (20, 52)), 0, 1)
    if kind == "csv":
        path = table(tmp_path / "l.csv", BLENDSHAPES[1:], (100 * calm[:, 1:]).round(3).tolist())
    else:
        np.save(path := tmp_path / "l.npy", 100 * calm)
    read = read_landmarks(path)
    np.testing.assert_allclose(read.values[:, 1:], calm[:, 1:], atol=1e-4)
    assert "divided by 100" in read.notes[0] and emotion_of(read.values) == "neutral"


def test_a_few_values_beyond_one_are_cut_off(tmp_path):
    rows = np.tile(SMILE, (50, 1))
    rows[7, 5] = 1.9
    np.save(tmp_path / "l.npy", rows)
    read = read_landmarks(tmp_path / "l.npy")
    assert read.values[7, 5] == 1 and read.notes == ()
    np.testing.assert_array_equal(read.values[:7], rows[:7])


@pytest.mark.parametrize("largest, smallest", [(255, 0), (1, -1)])
def test_values_of_another_kind_are_refused(tmp_path, largest, smallest):
    np.save(tmp_path / "l.npy", np.random.default_rng(0).uniform(smallest, largest, (20, 52)))
    with pytest.raises(InputError, match="blendshapes are 0 to 1, or 0 to 100 percent"):
        read_landmarks(tmp_path / "l.npy")


OPENFACE = [f"AU{number:02d}" for number in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)]


@pytest.mark.parametrize(
    "units, expected",
    [((6, 12), "happy"), ((1, 4, 15), "sad"), ((1, 2, 5, 26), "surprised"), ((4, 5, 7, 23), "angry"), ((), "neutral")],
)
def test_action_units_of_openface_and_py_feat(tmp_path, units, expected):
    shown = [float(f"AU{number:02d}" in [f"AU{unit:02d}" for unit in units]) for number in range(50)]
    number_of = [int(name[2:]) for name in OPENFACE]
    head = ["frame", " timestamp", " confidence", " success", *(f" {name}_r" for name in OPENFACE)]
    head += [f" {name}_c" for name in [*OPENFACE, "AU28"]]
    rows = [
        [row + 1, row / 30, 0.98, int(row != 3), *(3.0 * shown[unit] for unit in number_of)]
        + [shown[unit] for unit in [*number_of, 28]]
        for row in range(10)
    ]
    openface = read_landmarks(table(tmp_path / "openface.csv", head, rows))
    assert openface.times == pytest.approx(np.arange(10) / 30)
    assert np.isnan(openface.values[3]).all() and np.isnan(openface.values).any(1).sum() == 1
    assert emotion_of(np.delete(openface.values, 3, axis=0)) == expected
    assert "action units" in openface.notes[0]
    rows = [[*(0.6 * shown[unit] for unit in number_of), row] for row in range(10)]
    py_feat = read_landmarks(table(tmp_path / "feat.csv", [*OPENFACE, "frame"], rows))
    assert py_feat.frames.tolist() == list(range(10)) and emotion_of(py_feat.values) == expected


@pytest.mark.parametrize(
    "names, told",
    [
        (["frame", "AU12_r", "AU06_r"], "AU6, AU12.*too few to distinguish emotions"),
        (["frame", "x_0", "y_0"], "neither blendshapes nor action units .frame, x_0, y_0"),
    ],
)
def test_what_is_no_face_is_refused_with_what_it_is(tmp_path, names, told):
    with pytest.raises(InputError, match=told):
        read_landmarks(table(tmp_path / "l.csv", names, [[0, 1, 2]]))


@pytest.mark.parametrize("suffix", ["npy", "safetensors"])
@pytest.mark.parametrize("scale", [1, 100])
def test_columns_without_names_in_another_order_are_refused(tmp_path, suffix, scale):
    """As ARKit counts them: the eyes first, where MediaPipe has _neutral, and tongueOut last."""
    from safetensors.numpy import save_file

    arkit = np.zeros((20, 52), np.float32)
    arkit[:, 0] = arkit[:, 7] = np.linspace(0, 0.9, 20) * scale
    path = tmp_path / f"l.{suffix}"
    np.save(path, arkit) if suffix == "npy" else save_file({"blendshapes": arkit}, path)
    with pytest.raises(InputError, match="_neutral, which stays near 0, so the columns are in another order"):
        read_landmarks(path)
