import io
import os
import struct
import tracemalloc
import wave
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, ImageCms

from dicetalk.errors import InputError
from dicetalk.media.audio import load_audio
from dicetalk.media.image import _scale_to_8_bits, load_image

RATE = 44100


def gradient(width=40, height=30):
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


def pixels(path):
    image = load_image(path)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("extension", ["png", "bmp", "tiff", "webp", "ppm", "jpg", "gif"])
def test_common_formats(tmp_path, extension):
    path = tmp_path / f"a.{extension}"
    gradient().save(path)
    assert np.abs(pixels(path) - np.asarray(gradient()).astype(int)).mean() < 8


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° clockwise to be upright
    gradient().save(tmp_path / "a.png", exif=exif)
    upright = gradient().transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(pixels(tmp_path / "a.png"), np.asarray(upright))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_put_on_white(tmp_path, mode):
    image = Image.new(mode, (2, 1), 0)
    image.putalpha(Image.frombytes("L", (2, 1), bytes([0, 255])))
    image.save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").tolist() == [[[255] * 3, [0] * 3]]


def test_half_transparent_pixels_are_mixed_with_white(tmp_path):
    Image.new("RGBA", (1, 1), (0, 100, 200, 128)).save(tmp_path / "a.png")
    assert np.abs(pixels(tmp_path / "a.png")[0, 0] - [127, 177, 227]).max() <= 1


def test_transparent_palette(tmp_path):
    image = Image.frombytes("P", (2, 1), bytes([0, 1]))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "a.png", transparency=0)
    assert pixels(tmp_path / "a.png").tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_palette_colours(tmp_path):
    gradient().quantize(16).save(tmp_path / "a.png")
    assert np.abs(pixels(tmp_path / "a.png") - np.asarray(gradient()).astype(int)).mean() < 25


def test_one_bit(tmp_path):
    Image.frombytes("1", (2, 1), bytes([0b01000000])).save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").tolist() == [[[0] * 3, [255] * 3]]


def test_16_bit_greyscale_is_scaled(tmp_path):
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png")[0, :, 0].tolist() == [0, 1, 128, 255]


def test_a_large_16_bit_picture_takes_little_memory():
    image = Image.fromarray(np.full((3000, 3000), 32896, np.uint16))
    tracemalloc.start()
    try:
        grey = _scale_to_8_bits(image)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert grey.size == image.size and grey.getextrema() == (128, 128)
    assert peak < 8 * 3000 * 3000  # NumPy's; as float64 the picture alone would take that


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_float_greyscale_is_scaled(tmp_path, white):
    Image.fromarray(np.array([[0, 0.5, 1]], dtype=np.float32) * white).save(tmp_path / "a.tiff")
    assert pixels(tmp_path / "a.tiff")[0, :, 1].tolist() == [0, 128, 255]


@pytest.mark.parametrize("extension", ["jpg", "tiff"])
def test_cmyk_has_its_colours(tmp_path, extension):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    image.save(tmp_path / f"a.{extension}")
    red, green, blue = pixels(tmp_path / f"a.{extension}")[8, 8]
    assert red > 200 and green < 60 and blue < 60


def test_embedded_profile_is_applied(tmp_path):
    linear = ImageCms.ImageCmsProfile(io.BytesIO(linear_profile()))
    Image.new("RGB", (4, 4), (55, 55, 55)).save(tmp_path / "a.png", icc_profile=linear.tobytes())
    # Linear light 55/255 = 0.216 is 0.502 of sRGB's range.
    assert np.abs(pixels(tmp_path / "a.png") - 128).max() <= 2


def linear_profile():
    """sRGB's primaries with a linear tone curve: the tone curves of Pillow's own sRGB profile made into gamma 1."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for entry in range(struct.unpack_from(">I", data, 128)[0]):
        signature, offset, _ = struct.unpack_from(">4sII", data, 132 + 12 * entry)
        if signature in (b"rTRC", b"gTRC", b"bTRC"):
            data[offset : offset + 12] = struct.pack(">4sII", b"curv", 0, 0)
    return bytes(data)


def test_a_profile_that_does_not_fit_is_ignored(tmp_path):
    gradient().save(tmp_path / "a.png", icc_profile=b"nonsense")
    assert np.array_equal(pixels(tmp_path / "a.png"), np.asarray(gradient()))


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert pixels(tmp_path / "a.gif")[0, 0].tolist() == [255, 0, 0]


def png_header(width, height):
    def chunk(name, body):
        import zlib

        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html>", "known format"),
        (b"RIFF", "known format"),
        (png_header(60000, 60000), "too many pixels"),
        (png_header(100, 100), "cannot be read as an image"),
    ],
)
def test_unusable_images_are_named(tmp_path, content, words):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        load_image(tmp_path / "a.png")
    assert "a.png" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "gif", "tiff", "bmp"])
def test_truncated_images_are_named(tmp_path, extension):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"a.{extension}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=path.name):
        load_image(path)


def test_missing_image_and_folder(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_image(tmp_path / "a.png")
    with pytest.raises(InputError, match="is a folder"):
        load_image(tmp_path)


def tone(seconds, rate=RATE, frequency=440.0):
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def write_wav(path, channels, rate=RATE):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.stack(channels, axis=-1) * 32767).astype("<i2").tobytes())
    return path


def write_encoded(path, codec, samples, rate, picture=False):
    with av.open(str(path), "w") as container:
        if picture:
            video = container.add_stream("mpeg4", rate=Fraction(25))
            video.width = video.height = 32
            video.pix_fmt = "yuv420p"
        stream = None if samples is None else container.add_stream(codec, rate=rate, layout="mono")
        if picture:
            for _ in range(25):
                container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")))
            container.mux(video.encode(None))
        if stream:
            frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
            frame.sample_rate = rate
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


def test_wav_is_mixed_and_resampled(tmp_path):
    audio = load_audio(write_wav(tmp_path / "a.wav", [tone(2), np.zeros(2 * RATE)]))
    assert audio.dtype == np.float32 and audio.shape == (32000,)
    assert np.abs(audio - 0.5 * tone(2, 16000))[200:-200].max() < 1e-3


def test_16_khz_wav_is_exact(tmp_path):
    samples = np.random.default_rng(0).uniform(-1, 1, 4000)
    audio = load_audio(write_wav(tmp_path / "a.wav", [samples], 16000))
    assert np.abs(audio - np.trunc(samples * 32767) / 32768).max() < 1e-6


@pytest.mark.parametrize(
    "name, codec, rate",
    [("a.flac", "flac", 48000), ("a.mp3", "libmp3lame", 44100), ("a.m4a", "aac", 44100), ("a.opus", "libopus", 48000)],
)
def test_compressed_audio(tmp_path, name, codec, rate):
    audio = load_audio(write_encoded(tmp_path / name, codec, tone(2, rate), rate))
    assert abs(len(audio) - 32000) < 1600
    middle = audio[8000:24000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert spectrum.argmax() == 440 and abs(np.sqrt(np.mean(middle**2)) - 0.3536) < 0.02


def test_audio_track_of_a_video(tmp_path):
    path = write_encoded(tmp_path / "a.mp4", "aac", tone(1, 44100), 44100, picture=True)
    assert abs(len(load_audio(path)) - 16000) < 1600


def test_start_and_length(tmp_path):
    steps = np.repeat([0.1, 0.2, 0.3, 0.4], RATE)
    path = write_wav(tmp_path / "a.wav", [steps])
    piece = load_audio(path, start=1.0, length=2.0)
    assert len(piece) == 32000
    assert np.allclose(piece[[1000, 15000, 17000, 31000]], [0.2, 0.2, 0.3, 0.3], atol=2e-3)
    assert len(load_audio(path, start=3.5, length=10)) == 8000
    assert len(load_audio(path, start=3.5)) == 8000


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000, 96000])
def test_length_follows_the_rate(tmp_path, rate):
    assert len(load_audio(write_wav(tmp_path / "a.wav", [tone(2, rate)], rate))) == 32000


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"start": 5}, r"past the end of .*a\.wav, which lasts 1\.00 s"),
        ({"start": 1.0}, "past the end"),
        ({"start": -1}, "start is -1 s"),
        ({"start": float("nan")}, "start is nan s"),
        ({"length": 0}, "length is 0 s"),
        ({"length": float("inf")}, "length is inf s"),
    ],
)
def test_times_that_make_no_sense_are_named(tmp_path, arguments, words):
    path = write_wav(tmp_path / "a.wav", [tone(1)])
    with pytest.raises(InputError, match=words):
        load_audio(path, **arguments)


def test_silent_video_is_named(tmp_path):
    path = write_encoded(tmp_path / "a.mp4", None, None, None, picture=True)
    with pytest.raises(InputError, match="no audio track"):
        load_audio(path)


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html></html>", bytes(1000), b"RIFF1234WAVE", b"ID3"])
def test_damaged_audio_is_named(tmp_path, content):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.wav"):
        load_audio(tmp_path / "a.wav")


def test_truncated_mp4_is_named(tmp_path):
    path = write_encoded(tmp_path / "a.m4a", "aac", tone(2, 44100), 44100)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"a\.m4a"):
        load_audio(path)


def test_mostly_damaged_packets_are_named(tmp_path):
    path = write_encoded(tmp_path / "a.flac", "flac", tone(4, 48000), 48000)
    content = bytearray(path.read_bytes())
    content[1000:] = np.random.default_rng(0).integers(0, 256, len(content) - 1000, dtype=np.uint8).tobytes()
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.flac"):
        load_audio(path)


def test_a_few_damaged_packets_are_left_out(tmp_path):
    path = write_encoded(tmp_path / "a.mp3", "libmp3lame", tone(4, 44100), 44100)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 600] = bytes(600)
    path.write_bytes(content)
    assert 3.5 * 16000 < len(load_audio(path)) <= 4.1 * 16000


def test_wav_with_nan_is_named(tmp_path):
    samples = np.zeros(16000, dtype="<f4")
    samples[100] = np.nan
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + 64000, b"WAVE", b"fmt ", 16, 3, 1, 16000, 64000, 4, 32, b"data", 64000
    )
    (tmp_path / "a.wav").write_bytes(header + samples.tobytes())
    with pytest.raises(InputError, match="not finite"):
        load_audio(tmp_path / "a.wav")


@pytest.mark.skipif(os.name == "nt", reason="Windows takes no such names")
@pytest.mark.parametrize("name", ["12:30.wav", "talk:1.wav", "file:a.wav", "http://a.wav", "-a.wav"])
def test_names_that_look_like_addresses(tmp_path, monkeypatch, name):
    from dicetalk.media.audio import read_sound
    from dicetalk.reading.files import open_clip

    monkeypatch.chdir(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    write_wav(tmp_path / name, [tone(1)])
    assert len(load_audio(name)) == 16000
    assert sum(map(len, open_clip(name).audio())) == 16000
    assert sum(block.shape[1] for block in read_sound(name)[1]) == RATE


def test_missing_audio_and_folder(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_audio(tmp_path / "a.wav")
    with pytest.raises(InputError, match="is a folder"):
        load_audio(tmp_path)


def test_a_change_of_rate_or_layout_within_a_file_is_evened_out():
    from dicetalk.media.audio import SteadyResampler

    def frame(rate, layout, channels):
        made = av.AudioFrame.from_ndarray(np.full((channels, rate // 10), 0.5, np.float32), "fltp", layout)
        made.sample_rate = rate
        return made

    resampler = SteadyResampler("mono", 44100)
    blocks = [resampler.resample(frame(*source)) for source in ((44100, "mono", 1), (48000, "stereo", 2))]
    assert all(len(block) == 1 and block.mean() > 0.3 for part in blocks for block in part)
    assert abs(sum(block.shape[1] for block in blocks[1]) - 4410) < 100
