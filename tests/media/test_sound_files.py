"""Sound as recorders, phones, browsers and editors write it: at its time, at its level, or one error that helps."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from test_sound import RATE, bursts, lag, level, write

from dicetalk.errors import InputError
from dicetalk.media.audio import load_audio, load_sound
from dicetalk.reading.streams import stream_audio

PCM = bytes.fromhex("0100000000001000800000aa00389b71")


def wav(path, data, tag=1, channels=1, bits=16, valid=None, claimed=None, after=b""):
    """A WAV of samples as bytes; `valid` of the bits are used, and its header claims `claimed` bytes of sound."""
    width = channels * bits // 8
    form = struct.pack("<HHIIHH", tag if valid is None else 0xFFFE, channels, RATE, RATE * width, width, bits)
    if valid is not None:
        form += struct.pack("<HHI", 22, valid, 0) + PCM
    claimed = len(data) if claimed is None else claimed
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", claimed) + data + after
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


def voice():
    sound = bursts(8.0)
    return 0.9 * sound / np.abs(sound).max()


def whole_numbers(samples, bits, valid):
    """Samples of `valid` bits at the upper end of those of `bits`, as bytes."""
    numbers = np.round(samples * (2 ** (valid - 1) - 1)).astype("<i4") << (bits - valid)
    return numbers.astype("<i4").reshape(-1, 1).view(np.uint8)[:, : bits // 8].tobytes()


def same(heard, truth, share=0.999):
    """Whether two sounds are the same at the same time and level."""
    assert len(heard) == pytest.approx(len(truth), abs=1) and abs(lag(heard, truth)) < 1e-4
    assert np.corrcoef(heard[: len(truth)], truth[: len(heard)])[0, 1] > share
    assert level(heard) == pytest.approx(level(truth), rel=0.02)


@pytest.mark.parametrize("bits, valid", [(32, 24), (32, 20), (32, 16), (32, 32), (24, 20), (24, 16), (16, 12)])
def test_samples_in_larger_ones(tmp_path, bits, valid):
    path = wav(tmp_path / "a.wav", whole_numbers(voice(), bits, valid), bits=bits, valid=valid)
    truth = load_audio(write(tmp_path / "true.wav", voice()))
    same(load_audio(path), truth)
    same(load_audio(path, start=6.0, length=1.0), truth[96000:112000])
    same(np.concatenate(list(stream_audio(path))), truth)


@pytest.mark.parametrize("claimed", [0, 0xFFFFFFFF, 2 * RATE, 16 * RATE - 40, 99 * RATE])
def test_a_header_that_is_wrong_about_the_length(tmp_path, claimed):
    path = wav(tmp_path / "a.wav", whole_numbers(voice(), 16, 16), claimed=claimed)
    truth = load_audio(write(tmp_path / "true.wav", voice()))
    same(load_audio(path), truth)
    same(load_audio(path, start=6.0, length=1.0), truth[96000:112000])


@pytest.mark.parametrize("after", [b"LIST\4\0\0\0INFO", b"\0junk\4\0\0\0text", b"id3 \2\0\0\0ab"])
def test_chunks_after_the_sound_are_no_sound(tmp_path, after):
    samples = whole_numbers(voice()[: RATE // 2 + 1], 16, 16)[: -1 if after[0] == 0 else None]
    path = wav(tmp_path / "a.wav", samples, after=after)
    assert len(load_audio(path)) == pytest.approx(8000, abs=1)


KINDS = [
    *[
        ("a.wav", "pcm_mulaw"),
        ("a.wav", "pcm_alaw"),
        ("a.wav", "pcm_u8"),
        ("a.wav", "pcm_s24le"),
        ("a.wav", "pcm_f64le"),
    ],
    *[("a.wav", "adpcm_ms"), ("a.wav", "adpcm_ima_wav"), ("a.w64", "pcm_s16le"), ("a.aiff", "pcm_s16be")],
    *[
        ("a.aifc", "pcm_f32be"),
        ("a.caf", "pcm_s16be"),
        ("a.au", "pcm_s16be"),
        ("a.mp3", "libmp3lame"),
        ("a.m4a", "aac"),
    ],
    *[("a.m4a", "alac"), ("a.m4b", "aac"), ("a.mov", "aac"), ("a.3gp", "aac"), ("a.opus", "libopus"), ("a.mka", "aac")],
    *[("a.webm", "libopus"), ("a.flac", "flac"), ("a.wv", "wavpack"), ("a.tta", "tta")],
]


@pytest.mark.parametrize("name, codec", KINDS, ids=lambda part: part)
def test_every_kind_of_file_is_heard_at_its_time(tmp_path, name, codec):
    """Encoders begin with silence of their own (MP3, AAC, Opus), which is left out."""
    heard, truth = (
        load_audio(write(tmp_path / name, voice(), codec=codec)),
        load_audio(write(tmp_path / "t.wav", voice())),
    )
    assert abs(lag(heard, truth)) < 1e-3 and -2 <= len(heard) - len(truth) < 800
    assert np.corrcoef(heard[: len(truth)], truth)[0, 1] > 0.98
    assert level(heard) == pytest.approx(level(truth), rel=0.06)


@pytest.mark.parametrize("rate", [8000, 11025, 96000, 192000])
def test_rates_of_telephones_and_of_studios(tmp_path, rate):
    heard = load_audio(write(tmp_path / "a.wav", bursts(1.0, rate), rate=rate))
    assert len(heard) == pytest.approx(16000, abs=1)


@pytest.mark.parametrize(
    "format, codec, options",
    [
        ("webm", "libopus", {"live": "1"}),  # MediaRecorder: no duration, no index
        ("wav", "pcm_s16le", {}),
        ("flac", "flac", {}),
        ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov"}),
        ("mp3", "libmp3lame", {}),
        ("adts", "aac", {}),
    ],
)
def test_streams_that_were_written_without_going_back(tmp_path, format, codec, options):
    class Pipe:
        content = b""

        def write(self, data):
            self.content += bytes(data)
            return len(data)

    samples, pipe = bursts(9.0), Pipe()
    with av.open(pipe, "w", format=format, options=options) as container:
        stream = container.add_stream(codec, rate=RATE, layout="mono")
        for start in range(0, len(samples), 960):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 960].copy(), "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (tmp_path / "a").write_bytes(pipe.content)
    truth = load_audio(write(tmp_path / "true.wav", samples))
    # What says nothing about the encoder's own beginning is heard up to 25 ms late, a third of a frame.
    assert -0.001 < lag(load_audio(tmp_path / "a"), truth) < 0.025
    late = load_audio(tmp_path / "a", start=7.0, length=1.0)
    assert len(late) == 16000 and -0.001 < lag(late, truth[112000:128000]) < 0.025


def test_a_cover_picture_is_no_video(tmp_path):
    plain = write(tmp_path / "plain.flac", voice())
    with av.open(str(plain)) as given, av.open(str(tmp_path / "a.flac"), "w") as container:
        sound = container.add_stream_from_template(given.streams.audio[0])
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24").reformat(format="yuvj420p")
        for packet in [*cover.encode(frame), *cover.encode(None)]:
            container.mux(packet)
        for packet in given.demux(given.streams.audio[0]):
            if packet.size:
                packet.stream = sound
                container.mux(packet)
    assert np.array_equal(load_audio(tmp_path / "a.flac", start=1.0), load_audio(plain, start=1.0))


def test_recordings_one_after_the_other_in_a_file(tmp_path):
    """As `cat` joins them; with another rate in the second, too."""
    first = write(tmp_path / "1.aac", bursts(2.0, 44100), rate=44100, codec="aac")
    second = write(tmp_path / "2.aac", bursts(2.0, 22050, seed=2), rate=22050, codec="aac")
    (tmp_path / "a.aac").write_bytes(first.read_bytes() + second.read_bytes())
    truth = np.concatenate([load_audio(first), load_audio(second)])
    assert len(load_audio(tmp_path / "a.aac")) == pytest.approx(len(truth), abs=160)
    assert np.corrcoef(load_audio(tmp_path / "a.aac")[36000:60000], truth[36000:60000])[0, 1] > 0.97


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.opus", "a.flac", "a.webm", "a.aiff"])
def test_half_a_file_is_half_the_sound(tmp_path, name):
    content = write(tmp_path / name, voice(), codec="pcm_s16be" if name == "a.aiff" else None).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    truth, heard = load_audio(write(tmp_path / "true.wav", voice())), load_audio(tmp_path / name)
    assert len(heard) == pytest.approx(64000, rel=0.3) and abs(lag(heard, truth)) < 1e-3


@pytest.mark.parametrize("name, codec", [("a.wav", "libmp3lame"), ("a.mp3", "flac"), ("a.m4a", "pcm_s16le")])
def test_a_suffix_may_be_wrong(tmp_path, name, codec):
    given = {"libmp3lame": "b.mp3", "flac": "b.flac", "pcm_s16le": "b.wav"}[codec]
    write(tmp_path / given, voice(), codec=codec).rename(tmp_path / name)
    assert abs(lag(load_audio(tmp_path / name), load_audio(write(tmp_path / "true.wav", voice())))) < 1e-3


def test_a_constant_offset_is_no_sound(tmp_path):
    """A cheap microphone's: of either sign in stereo, or in a channel where nothing is said."""
    quiet = 0.02 * voice()
    sound = load_sound(write(tmp_path / "a.wav", np.stack([quiet + 0.2, quiet - 0.2])))
    truth = 0.02 * load_audio(write(tmp_path / "true.wav", voice()))
    assert not any("inverse" in note for note in sound.notes)
    same(sound.speech, truth)
    channels = np.zeros((6, len(quiet)), np.float32)
    channels[2], channels[3] = quiet, 0.2
    same(load_audio(write(tmp_path / "b.wav", channels)), truth)


@pytest.mark.parametrize("peak, told", [(0, "is silent"), (1e-3, "very quiet (its peak is at -60 dB)"), (0.05, None)])
def test_hardly_any_sound_is_told(tmp_path, peak, told):
    notes = load_sound(write(tmp_path / "a.wav", peak / 0.9 * voice())).notes
    assert (not notes and told is None) or (len(notes) == 1 and told in notes[0])


def test_of_two_tracks_the_one_that_can_be_decoded_is_heard(tmp_path):
    """As in a phone's video with spatial sound of its own kind beside the usual one."""
    path = write(tmp_path / "a.mkv", bursts(2.0, seed=1), bursts(2.0, seed=2))
    path.write_bytes(path.read_bytes().replace(b"A_OPUS", b"A_SELF", 1))
    sound = load_sound(path)
    assert "2 audio tracks: number 2" in sound.notes[0]
    assert abs(lag(sound.speech, load_audio(write(tmp_path / "true.wav", bursts(2.0, seed=2))))) < 1e-3


def unknown_kind(path):
    path.write_bytes(write(path.with_name("b.mkv"), bursts(1.0)).read_bytes().replace(b"A_OPUS", b"A_SELF"))


def cut_off(path):
    content = write(path.with_name("b.m4a"), bursts(1.0)).read_bytes()
    path.write_bytes(content[: content.index(b"moov")])


def protected(path):
    path.write_bytes(write(path.with_name("b.m4a"), bursts(1.0)).read_bytes().replace(b"mp4a", b"drms"))


@pytest.mark.parametrize(
    "name, make, told",
    [
        ("a.mkv", unknown_kind, r"of a kind that FFmpeg cannot decode: .* export it as WAV or AAC"),
        ("a.m4a", cut_off, r"\(its index is missing\): the recording or the copy was cut off"),
        ("a.m4p", protected, r"protected against copying \(DRM\)"),
        ("a.mp3", lambda path: path.write_text("<!DOCTYPE html><title>Sign in</title>" * 40), r"\(it holds text\)"),
        ("a.wav", lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "pointer to a file"),
        ("a.wav", lambda path: path.write_bytes(b"PK\3\4" + bytes(3000)), r"\(Invalid data found .*\): convert it"),
        (
            "a.sw",
            lambda path: path.write_bytes(bytes(32000)),
            r"without a header.* -ar 16000 -ac 1 -i a\.sw speech\.wav",
        ),
        ("a.al", lambda path: path.write_bytes(bytes(32000)), "without a header"),
    ],
)
def test_what_cannot_be_heard_says_what_it_is(tmp_path, name, make, told):
    make(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name.replace('.', '[.]')}.*{told}") as caught:
        load_audio(tmp_path / name)
    assert "Errno" not in str(caught.value) and "\n" not in str(caught.value)
