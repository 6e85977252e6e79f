from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from skimage import data

from dicetalk.errors import InputError
from dicetalk.media import detector, faces
from dicetalk.media.faces import choose_face, detect_face, group_hits, hairline_to_chin, parse_face
from dicetalk.media.portrait import check_box, draw_face_mask, face_crop, mask_rectangle, prepare_portrait, resized_size

# Read off the picture: the edges of the face, its hairline under the fringe and its chin.
ASTRONAUT_FACE = (178, 58, 272, 179)


@pytest.fixture(autouse=True)
def own_search(monkeypatch):
    """Also where the stronger search is installed."""
    monkeypatch.setattr(detector, "_network", lambda: None)


@pytest.fixture(scope="module")
def astronaut():
    return Image.fromarray(data.astronaut())


def overlap(a, b):
    """Intersection over union."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(0, width) * max(0, height)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def test_face_is_found_from_hairline_to_chin(astronaut):
    box = detect_face(astronaut)
    assert overlap(box, ASTRONAUT_FACE) > 0.8
    faces._found.clear()
    assert detect_face(astronaut) == box


def test_the_faces_of_the_last_pictures_are_not_searched_for_again(astronaut, monkeypatch):
    searched = []
    monkeypatch.setattr(faces, "_found", {})
    monkeypatch.setattr(faces, "_choose", lambda image, grey, choice: searched.append(choice) or len(searched))
    assert [choose_face(astronaut), choose_face(astronaut.copy()), choose_face(astronaut, "left")] == [1, 1, 2]
    darker = astronaut.point(lambda value: value // 2)
    assert choose_face(darker) == 3 and choose_face(astronaut) == 1
    others = [choose_face(Image.new("L", (8, 8), shade)) for shade in range(faces._KEPT)]
    assert len(set(others)) == len(faces._found) == faces._KEPT
    assert choose_face(astronaut) == len(others) + 4, "the oldest ones are searched for again"


def test_a_face_is_as_wide_as_the_detector_draws_it_that_the_model_was_trained_with():
    """The box is CenterFace's of Grace Hopper, as tests/tools/face_boxes.py prints it."""
    matplotlib = pytest.importorskip("matplotlib")
    picture = Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")
    assert overlap(detect_face(picture), (180, 128, 353, 334)) > 0.7


@pytest.mark.parametrize("scale", [0.2, 0.5, 4])
def test_face_is_found_at_other_sizes(astronaut, scale):
    side = round(512 * scale)
    box = detect_face(astronaut.resize((side, side), Image.Resampling.LANCZOS))
    assert overlap([value / scale for value in box], ASTRONAUT_FACE) > 0.77


def test_small_face_in_a_large_picture_is_found(astronaut):
    wide = Image.new("RGB", (1600, 1200), "gray")
    wide.paste(astronaut, (900, 600))
    box = detect_face(wide)
    assert overlap((box[0] - 900, box[1] - 600, box[2] - 900, box[3] - 600), ASTRONAUT_FACE) > 0.85


def test_largest_face_is_taken(astronaut):
    two = Image.new("RGB", (1024, 512))
    two.paste(astronaut.resize((400, 400)), (0, 0))
    two.paste(astronaut, (512, 0))
    box = detect_face(two)
    assert overlap((box[0] - 512, box[1], box[2] - 512, box[3]), ASTRONAUT_FACE) > 0.77


def test_equally_large_faces_are_ambiguous(astronaut):
    two = Image.new("RGB", (1024, 512))
    two.paste(astronaut, (0, 0))
    two.paste(astronaut, (512, 0))
    with pytest.raises(InputError, match=r"equally large.*--face"):
        detect_face(two)


@pytest.mark.parametrize(
    "picture",
    [
        lambda: Image.fromarray(data.chelsea()),
        lambda: Image.fromarray(data.coffee()),
        lambda: Image.fromarray(data.brick()),
        lambda: Image.new("RGB", (512, 512), "gray"),
        lambda: Image.new("RGB", (1, 1)),
        lambda: Image.new("RGB", (3000, 2)),
    ],
    ids=["cat", "coffee", "bricks", "gray", "one pixel", "line"],
)
def test_no_face_says_so(picture):
    with pytest.raises(InputError, match=r"No face.*--face"):
        detect_face(picture())


def test_hits_on_one_face_are_one_group():
    squares = [(300, 50, 60), (12, 11, 44), (10, 10, 40), (11, 9, 38)]
    assert group_hits(squares) == [(1, (300, 50, 60)), (3, (11, 10, (44 + 40 + 38) / 3))]


def test_face_box_stays_inside_the_image():
    assert hairline_to_chin((-20, -3, 130), (90, 105)) == (0, 0, 90, 105)


boxes = st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
sides = st.integers(1, 4000)


def box_in(fractions, width, height):
    """A box of at least two pixels inside the image, from fractions of its sides."""
    a, b, c, d = fractions
    x1, x2 = sorted((a * width, c * width))
    y1, y2 = sorted((b * height, d * height))
    assume(x2 - x1 >= 2 and y2 - y1 >= 2)
    return x1, y1, x2, y2


@settings(deadline=None)
@given(boxes, sides, sides, st.floats(0, 5))
def test_crop_is_a_square_inside_the_image_that_holds_the_centre(fractions, width, height, ratio):
    box = box_in(fractions, width, height)
    x1, y1, x2, y2 = face_crop(box, (width, height), ratio)
    assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
    assert abs((x2 - x1) - (y2 - y1)) <= 1
    assert x1 - 1 <= (box[0] + box[2]) / 2 <= x2 + 1 and y1 - 1 <= (box[1] + box[3]) / 2 <= y2 + 1


@settings(deadline=None)
@given(boxes, sides, sides, st.floats(1, 3))
def test_mask_rectangle_lies_inside_the_image_and_is_not_empty(fractions, width, height, area):
    x1, x2, y1, y2 = mask_rectangle(box_in(fractions, width, height), (width, height), area)
    assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height


@given(sides, sides, st.integers(64, 2048))
def test_resized_sides_are_multiples_of_64(width, height, short_side):
    if max(width, height) > 8 * min(width, height):
        with pytest.raises(InputError, match="more than 8 times as long as wide"):
            resized_size(width, height, short_side)
        return
    size = resized_size(width, height, short_side)
    assert all(side >= 64 and side % 64 == 0 for side in size)
    assert abs(min(size) - short_side) <= 32
    assert (size[0] >= size[1]) == (width >= height) or size[0] == size[1]


def test_resized_size_of_usual_pictures():
    assert resized_size(512, 512, 512) == (512, 512)
    assert resized_size(1920, 1080, 512) == (896, 512)
    assert resized_size(1080, 1920, 576) == (576, 1024)


@pytest.mark.parametrize("short_side", [0, 63, -512, float("nan")])
def test_short_side_that_cannot_be_used(short_side):
    with pytest.raises(InputError, match="short side"):
        resized_size(512, 512, short_side)


@pytest.mark.parametrize("ratio", [-0.1, float("nan"), float("inf")])
def test_margin_that_cannot_be_used(ratio):
    with pytest.raises(InputError, match="margin"):
        face_crop((10, 10, 20, 20), (100, 100), ratio)


@pytest.mark.parametrize(
    "box, words",
    [
        ((10, 10, 20), "not four numbers"),
        ("face", "not four numbers"),
        (None, "not four numbers"),
        ((10, 10, 20, "x"), "not four numbers"),
        ((10, 10, float("nan"), 20), "10,10,nan,20 holds a value that is not a finite number"),
        ((10, 10, float("inf"), 20), "not a finite number"),
        ((20, 10, 10, 20), "20,10,10,20 is inverted"),
        ((10, 20, 20, 20), "inverted or empty"),
        ((100, 10, 120, 20), "100,10,120,20 is outside the image, which is 100×50"),
        ((10, 50, 20, 60), "outside"),
        ((-20, 10, -10, 20), "outside"),
        ((-20, 10, 1, 20), "less than 2 pixels"),
        ((10, 10, 11, 20), "less than 2 pixels"),
    ],
)
def test_box_that_cannot_be_used_is_named(box, words):
    with pytest.raises(InputError, match=words):
        check_box(box, (100, 50))


def test_box_is_clipped_to_the_image():
    assert check_box([-10, "5", 120, 60], (100, 50)) == (0, 5, 100, 50)


def test_prepared_portrait_without_crop(astronaut):
    wide = astronaut.crop((0, 0, 512, 300))
    prepared = prepare_portrait(wide, ASTRONAUT_FACE)
    assert prepared.image.mode == "RGB" and prepared.image.size == (896, 512)
    assert prepared.face_mask.shape == (512, 896) and prepared.face_mask.dtype == np.float32
    assert prepared.face_box == ASTRONAUT_FACE and prepared.crop_box == (0, 0, 512, 300)
    assert prepared.original_size == (512, 300)
    assert prepared.face_mask.min() >= 0 and prepared.face_mask.max() == 1
    rows, columns = np.nonzero(prepared.face_mask > 0.5)
    found = columns.min() * 512 / 896, rows.min() * 300 / 512, columns.max() * 512 / 896, rows.max() * 300 / 512
    assert overlap(found, (173, 51, 276, 185)) > 0.95  # the box made 1.1 times as large


def test_prepared_portrait_with_crop(astronaut):
    prepared = prepare_portrait(astronaut, crop=True)
    x1, y1, x2, y2 = prepared.crop_box
    assert prepared.crop_box == face_crop(prepared.face_box, (512, 512), 0.5)
    assert prepared.image.size == (512, 512) and abs((x2 - x1) - (y2 - y1)) <= 1
    expected = astronaut.crop(prepared.crop_box).resize((512, 512), Image.Resampling.LANCZOS)
    assert np.array_equal(np.asarray(prepared.image), np.asarray(expected))
    shifted = [value - (x1, y1)[i % 2] for i, value in enumerate(prepared.face_box)]
    assert np.array_equal(prepared.face_mask, draw_face_mask(shifted, (x2 - x1, y2 - y1), (512, 512)))
    rows, columns = np.nonzero(prepared.face_mask > 0.5)
    assert abs(columns.mean() - 256) < 15


@pytest.mark.parametrize("crop", [False, True])
def test_mask_replaces_the_box(astronaut, crop):
    mask = torch.zeros(512, 512)
    mask[60:180, 180:270] = 0.8
    mask[100, 100] = 0.3  # too faint to belong to the box
    prepared = prepare_portrait(astronaut, mask=mask, crop=crop, painted=True)
    assert prepared.face_box == (180, 60, 270, 180)
    assert prepared.crop_box == (face_crop((180, 60, 270, 180), (512, 512)) if crop else (0, 0, 512, 512))
    assert prepared.face_mask.shape == prepared.image.size[::-1] == (512, 512)
    x1, y1, x2, y2 = prepared.crop_box
    row, column = round((120 - y1) / (y2 - y1) * 512), round((225 - x1) / (x2 - x1) * 512)
    assert prepared.face_mask[row, column] == pytest.approx(0.8, abs=1e-2)
    assert prepared.face_mask[0, 0] == 0


def ellipse():
    y, x = np.mgrid[:512, :512]
    return (((x - 225) / 50) ** 2 + ((y - 120) / 65) ** 2 < 1).astype(np.float32)


def test_a_painted_mask_counts_as_its_rectangle(astronaut):
    """The model was trained with rectangles."""
    prepared = prepare_portrait(astronaut, mask=ellipse(), short_side=512)
    x1, y1, x2, y2 = map(int, prepared.face_box)
    expected = np.zeros((512, 512), np.float32)
    expected[y1:y2, x1:x2] = 1
    assert np.abs(prepared.face_mask - expected).mean() < 0.002
    painted = prepare_portrait(astronaut, mask=ellipse(), short_side=512, painted=True)
    np.testing.assert_allclose(painted.face_mask, ellipse(), atol=0.01)


@pytest.mark.parametrize("place", [(3, 3), (500, 200)])
def test_specks_of_a_mask_are_no_face(astronaut, place):
    """Of a brush that touched the picture, or of a segmentation."""
    mask = ellipse()
    mask[place[1] : place[1] + 6, place[0] : place[0] + 6] = 1
    prepared = prepare_portrait(astronaut, mask=mask)
    assert prepared.face_box == prepare_portrait(astronaut, mask=ellipse()).face_box
    assert prepared.notes == ("The mask has specks apart from the face, which were left out.",)


def test_two_large_parts_of_a_mask_are_both_the_face(astronaut):
    """A mask that glasses or a hand cut in two."""
    mask = ellipse()
    whole = prepare_portrait(astronaut, mask=mask).face_box
    mask[round((whole[1] + whole[3]) / 2)] = 0
    assert prepare_portrait(astronaut, mask=mask).face_box == whole


def test_a_mask_of_bytes_is_scaled_and_said(astronaut):
    soft = np.clip(ellipse() * 255, 20, 255)  # below 128 is no face
    prepared = prepare_portrait(astronaut, mask=soft)
    assert prepared.face_box == prepare_portrait(astronaut, mask=ellipse()).face_box
    assert "divided by that" in prepared.notes[0]


def test_a_mask_of_what_is_transparent_is_inverted(astronaut):
    """Load Image's mask of a cut-out picture is 1 where it is transparent."""
    prepared = prepare_portrait(astronaut, mask=1 - ellipse())
    assert prepared.face_box == prepare_portrait(astronaut, mask=ellipse()).face_box
    assert "was inverted" in prepared.notes[0]


@pytest.mark.parametrize("box", [(0.35, 0.1, 0.55, 0.35), (0, 0, 1, 1)])
def test_a_box_of_shares_is_of_the_sides(astronaut, box):
    assert check_box(box, (512, 256)) == tuple(share * side for share, side in zip(box, (512, 256) * 2))


def test_one_of_two_people_is_chosen(astronaut):
    """Side by side, and equally large."""
    two = Image.new("RGB", (640, 320), "gray")
    two.paste(astronaut.resize((320, 320)), (0, 0))
    two.paste(astronaut.resize((320, 320)), (320, 0))
    left, right = (overlap((x, 36, x + 59, 112), box) for x, box in zip((111, 431), _chosen(two, "left", "right")))
    assert left > 0.7 and right > 0.7
    assert choose_face(two, 2).text().endswith("number 2 of 2 from the left.")
    with pytest.raises(InputError, match="no face number 3 in the portrait. Found from the left: 1 at .*; 2 at "):
        choose_face(two, 3)
    with pytest.raises(InputError, match="equally large.*--face left or right"):
        choose_face(two)


def _chosen(image, *choices):
    return [choose_face(image, choice).box for choice in choices]


def test_where_the_face_was_found_is_said(astronaut):
    prepared = prepare_portrait(astronaut)
    x1, y1, x2, y2 = map(round, prepared.face_box)
    assert prepared.notes == (f"The face was found at {x1},{y1},{x2},{y2}.",) and prepared.warnings == ()


def test_a_face_for_which_little_tells_is_warned_of(astronaut):
    """Blurred so much that a reflection looks more like a face."""
    prepared = prepare_portrait(astronaut.filter(ImageFilter.GaussianBlur(6)))
    assert "It may be no face" in prepared.warnings[0] and "--face" in prepared.warnings[0]


@pytest.mark.parametrize("degrees", [-20, 20])
def test_a_tilted_head_is_warned_of_with_its_angle(astronaut, degrees):
    turned = astronaut.rotate(-degrees, Image.Resampling.BICUBIC, fillcolor="gray")  # to the right
    face = choose_face(turned)
    assert face.tilt == pytest.approx(degrees, abs=10)
    side = "right" if degrees > 0 else "left"
    assert any(f"degrees to the {side} (of the picture)" in warning for warning in face.warnings())
    assert overlap(face.box, (180, 75, 280, 195)) > 0.25


def test_a_photo_that_lies_on_its_side_says_how_to_turn_it(astronaut):
    with pytest.raises(InputError, match="when it is turned by 90 degrees to the right: turn the picture so"):
        choose_face(astronaut.rotate(90))


@pytest.mark.parametrize(
    "text, meant",
    [(None, None), ("left", "left"), (" Largest", "largest"), ("2", 2), ("1,2,30,40", (1, 2, 30, 40))],
)
def test_what_face_says(text, meant):
    assert parse_face(text) == meant


@pytest.mark.parametrize("text", ["", "0", "-1", "middle", "1,2,3", "1,2,3,nan", "1.5"])
def test_what_face_cannot_say(text):
    with pytest.raises(InputError, match="--face is .*largest, left or right"):
        parse_face(text, "--face")


@pytest.mark.parametrize(
    "mask, words",
    [
        (np.ones((512, 512)), "covers 100% of the picture.*Invert Mask"),
        (np.tile([1.0, 0.0], (512, 256)), "covers 50% of the picture and"),
        (np.zeros((512, 512)), "empty"),
        (np.full((512, 512), 0.4), "empty"),
        (np.ones((512, 256)), r"\(512, 256\), but the image needs one of shape \(512, 512\)"),
        (np.full((512, 512), np.nan), "not finite"),
        (np.pad([[1.0]], ((0, 511), (0, 511))), "less than 2 pixels"),
    ],
)
def test_mask_that_cannot_be_used(astronaut, mask, words):
    with pytest.raises(InputError, match=words):
        prepare_portrait(astronaut, mask=mask)


def test_greyscale_portrait(astronaut):
    prepared = prepare_portrait(astronaut.convert("L"), ASTRONAUT_FACE, short_side=64)
    assert prepared.image.mode == "RGB" and prepared.image.size == (64, 64)


def test_search_uses_no_download(monkeypatch, astronaut):
    """The cascade is a file of the installed scikit-image."""
    import skimage
    from skimage.data import lbp_frontal_face_cascade_filename

    assert str(lbp_frontal_face_cascade_filename()).startswith(str(next(iter(skimage.__path__))))
    assert faces._cascade().window_width == 24
