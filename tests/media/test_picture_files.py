"""Pictures as phones and cameras write them: the same files as a portrait and as a clip."""

import errno
import struct
import sys

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from dicetalk.errors import InputError
from dicetalk.media.image import is_still, load_image, save_png
from dicetalk.reading.files import open_clip

LEFT, RIGHT = (200, 40, 40), (40, 40, 200)


def halves(size=(96, 64)):
    picture = Image.new("RGB", size, LEFT)
    picture.paste(RIGHT, (size[0] // 2, 0, *size))
    return picture


def as_clip(path):
    ((seconds, frame),) = open_clip(path).frames()
    assert seconds == 0
    return frame


STORED = {
    1: lambda picture: picture,
    2: lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda picture: picture.transpose(Image.Transpose.ROTATE_180),
    4: lambda picture: picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda picture: picture.transpose(Image.Transpose.TRANSPOSE),
    6: lambda picture: picture.transpose(Image.Transpose.ROTATE_90),
    7: lambda picture: picture.transpose(Image.Transpose.TRANSVERSE),
    8: lambda picture: picture.transpose(Image.Transpose.ROTATE_270),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_photos_are_upright_as_portrait_and_as_clip(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo.{suffix}"
    STORED[orientation](halves()).save(path, exif=exif, quality=95)
    for seen in (np.asarray(load_image(path)), as_clip(path)):
        assert seen.shape == (64, 96, 3)
        np.testing.assert_allclose(seen[8::16, 8:40:16], np.broadcast_to(LEFT, (4, 2, 3)), atol=10)
        np.testing.assert_allclose(seen[8::16, 56::16], np.broadcast_to(RIGHT, (4, 3, 3)), atol=10)


def test_an_animation_is_a_clip_of_its_frames(tmp_path):
    frames = [Image.new("RGB", (32, 32), (60 * number, 0, 0)) for number in range(4)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=200)
    assert not is_still(tmp_path / "a.gif") and len(list(open_clip(tmp_path / "a.gif").frames())) == 4


def heic_start():
    return b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)


def test_heic_is_read_where_pillow_heif_is_installed(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(halves()).save(tmp_path / "photo.heic", quality=90)
    for seen in (np.asarray(load_image(tmp_path / "photo.heic")), as_clip(tmp_path / "photo.heic")):
        assert seen.shape == (64, 96, 3) and np.abs(seen[32, 20].astype(int) - LEFT).max() < 12


def test_heic_names_what_reads_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "photo.heic").write_bytes(heic_start())
    for read in (load_image, as_clip):
        with pytest.raises(InputError, match="photo.heic is a HEIC picture.*pip install pillow-heif.*JPEG"):
            read(tmp_path / "photo.heic")


def test_a_damaged_heic_is_named(tmp_path):
    pytest.importorskip("pillow_heif")
    (tmp_path / "photo.heic").write_bytes(heic_start())
    with pytest.raises(InputError, match="photo.heic cannot be read as an image"):
        load_image(tmp_path / "photo.heic")


def write_dng(path, size=(96, 64)):
    """A raw file of one colour a pixel, and a small preview before it, as cameras write them."""
    tifffile = pytest.importorskip("tifffile")
    colours = np.array([[LEFT] * (size[0] // 2) + [RIGHT] * (size[0] // 2)] * size[1], np.uint16) * 257
    mosaic = np.empty(size[::-1], np.uint16)
    for row, column, colour in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        mosaic[row::2, column::2] = colours[row::2, column::2, colour]
    dng = [
        (50706, "B", 4, (1, 4, 0, 0), False),
        (50708, "s", 0, "Made by a test", False),
        (50721, "2i", 9, (1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1), False),
        (50778, "H", 1, 21, False),
        (50728, "2I", 3, (1, 1, 1, 1, 1, 1), False),
    ]
    raw = [(33421, "H", 2, (2, 2), False), (33422, "B", 4, (0, 1, 1, 2), False), (50717, "H", 1, 65535, False)]
    with tifffile.TiffWriter(path) as target:
        small = np.asarray(halves((48, 32)))
        target.write(small, photometric="rgb", extratags=dng, subifds=1, metadata=None, subfiletype=1)
        target.write(mosaic, photometric=32803, extratags=raw, metadata=None, subfiletype=0)
    return path


@pytest.mark.parametrize("name", ["photo.dng", "photo.tif", "photo.nef"])
def test_a_raw_file_is_not_its_preview(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "rawpy", None)
    path = write_dng(tmp_path / name)
    for read in (load_image, as_clip):
        with pytest.raises(InputError, match=f"{name} is a camera's raw file.*pip install rawpy.*JPEG"):
            read(path)


def test_a_raw_file_is_developed_whole_where_rawpy_is_installed(tmp_path):
    pytest.importorskip("rawpy")
    path = write_dng(tmp_path / "photo.dng")
    for seen in (np.asarray(load_image(path)), as_clip(path)):
        assert seen.shape == (64, 96, 3)
        assert seen[32, 20].argmax() == 0 and seen[32, 76].argmax() == 2


def test_a_scan_of_several_pages_is_no_raw_file(tmp_path):
    halves().save(tmp_path / "scan.tif", save_all=True, append_images=[halves()])
    assert load_image(tmp_path / "scan.tif").size == (96, 64)


def test_a_picture_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(InputError, match="a.png cannot be written: the disk is full"):
        save_png(Image.new("RGB", (4, 4)), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def linear_profile():
    """sRGB's profile with a curve of gamma 1 in place of its own: 55 of 255 in it look like 128."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for number in range(int.from_bytes(data[128:132], "big")):
        entry = 132 + 12 * number
        if data[entry : entry + 4] in (b"rTRC", b"gTRC", b"bTRC"):
            start = int.from_bytes(data[entry + 4 : entry + 8], "big")
            data[start : start + 16] = b"para" + bytes(8) + (1 << 16).to_bytes(4, "big")
            data[entry + 8 : entry + 12] = (16).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "RGBA", "P of RGB", "P of RGBA"])
def test_the_profile_counts_for_palettes_and_greyscale_too(tmp_path, mode):
    palette, mode = mode.startswith("P"), mode.split()[-1]
    picture = Image.new("L", (16, 8), 55).convert(mode)
    if palette:
        picture = picture.quantize(4)
    assert picture.mode == ("P" if palette else mode)
    picture.save(tmp_path / "linear.png", icc_profile=linear_profile())
    np.testing.assert_allclose(np.asarray(load_image(tmp_path / "linear.png")), 128, atol=2)


def test_the_gamma_of_a_png_counts_unless_something_better_is_there(tmp_path):
    def seen(**chunks):
        extra = PngInfo()
        for name, data in chunks.items():
            extra.add(name.encode(), data)
        Image.new("RGB", (16, 8), (55, 55, 55)).save(tmp_path / "a.png", pnginfo=extra)
        return np.asarray(load_image(tmp_path / "a.png"))[0, 0].tolist()

    linear, usual = ((100000).to_bytes(4, "big"), (45455).to_bytes(4, "big"))
    assert seen(gAMA=linear) == [127] * 3
    assert seen(gAMA=usual) == seen(gAMA=linear, sRGB=b"\0") == seen(gAMA=bytes(4)) == [55] * 3


@pytest.mark.parametrize("suffix", ["png", "tga", "webp", "tif"])
def test_an_empty_alpha_channel_hides_nothing(tmp_path, suffix):
    path, picture = tmp_path / f"a.{suffix}", halves().convert("RGBA")
    picture.putalpha(0)
    picture.save(path, **({"lossless": True, "exact": True} if suffix == "webp" else {}))
    assert np.array_equal(np.asarray(load_image(path)), np.asarray(halves()))
    picture.putpixel((0, 0), (*LEFT, 255))  # with something to see the rest is hidden
    picture.save(path, **({"lossless": True, "exact": True} if suffix == "webp" else {}))
    found = np.asarray(load_image(path))
    assert found[0, 0].tolist() == list(LEFT) and (found[1:] == 255).all()


@pytest.mark.parametrize("bits", [8, 16])
def test_a_greyscale_tiff_may_count_from_white_to_black(tmp_path, bits):
    path = tmp_path / "negative.tif"
    dark = np.full((8, 16), 25 if bits == 8 else 25 * 257, np.uint8 if bits == 8 else np.uint16)
    Image.fromarray(~dark).save(path)
    data = path.read_bytes()
    black_is_zero = struct.pack("<HHIH", 262, 3, 1, 1)  # the tag PhotometricInterpretation, as it is stored
    assert data.count(black_is_zero) == 1
    path.write_bytes(data.replace(black_is_zero, struct.pack("<HHIH", 262, 3, 1, 0)))
    assert (np.asarray(load_image(path)) == 25).all()


def lab(picture):
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.profileToProfile(picture, *profiles, outputMode="LAB")


def grey(kind, scale):
    return lambda picture: Image.fromarray((np.asarray(picture.convert("L")) * np.float64(scale)).astype(kind))


UNUSUAL = {
    "a phone's two pictures in one.jpg": (lambda picture: picture, {"format": "MPO", "save_all": True}),
    "CMYK.jpg": (lambda picture: picture.convert("CMYK"), {}),
    "Lab.tif": (lab, {}),
    "pages.tif": (lambda picture: picture, {"save_all": True}),
    "float to 1.tif": (grey(np.float32, 1 / 255), {}),
    "float to 255.tif": (grey(np.float32, 1), {}),
    "16 bits.png": (grey(np.uint16, 257), {}),
    "32 bits.tif": (grey(np.int32, 257), {}),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_pictures_of_unusual_kinds(tmp_path, name):
    """The first one of several."""
    change, options = UNUSUAL[name]
    path, picture = tmp_path / name, halves()
    more = {"append_images": [picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]} if "save_all" in options else {}
    change(picture).save(path, **options, **more)
    assert is_still(path)
    in_colour = change(picture).mode in ("RGB", "CMYK", "LAB")
    expected = np.asarray(picture if in_colour else picture.convert("L").convert("RGB"), np.int16)
    for read in (np.asarray(load_image(path)), as_clip(path)):
        assert np.abs(read.astype(np.int16) - expected)[:, [10, -10]].max() <= 4
