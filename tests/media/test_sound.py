"""One door for sound: what people bring is heard by the model as the video plays it, at the time where it belongs."""

from fractions import Fraction

import av
import numpy as np
import pytest

from dicetalk.errors import InputError
from dicetalk.media import audio
from dicetalk.media.audio import load_audio, load_sound, read_sound
from dicetalk.reading.streams import stream_audio

RATE = 48000


def bursts(seconds=4.0, rate=RATE, seed=1):
    """(n,) noise of a voice's band, told apart from every other moment of it."""
    random = np.random.default_rng(seed).standard_normal(round(seconds * rate) + 200)
    return (0.1 * np.convolve(random, np.hanning(48) / 12, "same")[100:-100]).astype(np.float32)


def write(path, *tracks, rate=RATE, codec=None, layout=None, default=0, options=None, begins=0.0, pictures=None):
    """A file of tracks of (channels, samples) float32; `begins` is when the sound begins, `pictures` their seconds."""
    codec = codec or {".wav": "pcm_f32le", ".flac": "flac", ".mp3": "libmp3lame", ".m4a": "aac", ".mp4": "aac"}.get(
        path.suffix, "libopus"
    )
    with av.open(str(path), "w") as container:
        streams = []
        if pictures:
            video = container.add_stream("mpeg4", rate=25)
            video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
            picture = np.zeros((32, 32, 3), np.uint8)
        for number, samples in enumerate(tracks):
            samples = np.atleast_2d(samples)
            name = layout or {1: "mono", 2: "stereo", 6: "5.1"}[len(samples)]
            stream = container.add_stream(codec, rate=rate, layout=name, options=options or {})
            stream.disposition = av.stream.Disposition.default if number == default else av.stream.Disposition(0)
            streams.append((stream, samples, name))
        if pictures:
            for number in range(round(pictures * 25)):
                frame = av.VideoFrame.from_ndarray(picture, "rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        for stream, samples, name in streams:
            for start in range(0, samples.shape[1], 960):
                piece = np.ascontiguousarray(samples[:, start : start + 960])
                frame = av.AudioFrame.from_ndarray(piece.astype(np.float32), "fltp", name)
                frame.sample_rate, frame.pts = rate, round(begins * rate) + start
                frame.time_base = Fraction(1, rate)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


def level(samples):
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def played(path, *piece):
    rate, blocks = read_sound(path, *piece)
    return rate, np.concatenate(list(blocks), axis=1)


def lag(heard, truth, rate=16000):
    """Seconds by which a sound comes later than the truth, by their correlation."""
    size = 1 << (len(heard) + len(truth)).bit_length()
    alike = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(truth, size)))
    place = int(np.argmax(alike))
    return (place if place < size // 2 else place - size) / rate


@pytest.mark.parametrize("share", [-1.0, -0.5, -0.9])
def test_channels_that_are_each_others_inverse_do_not_cancel(tmp_path, share):
    voice = bursts()
    path = write(tmp_path / "a.wav", np.stack([voice, share * voice]))
    sound = load_sound(path)
    assert level(sound.speech) > 0.7 * level(load_audio(write(tmp_path / "one.wav", voice)))
    assert "inverse" in sound.notes[0] and "channel 2 was turned around" in sound.notes[0]
    rate, channels = played(path)
    assert rate == RATE and np.corrcoef(channels)[0, 1] > 0.99 and level(channels[0]) == pytest.approx(level(voice))
    streamed = np.concatenate(list(stream_audio(path)))
    np.testing.assert_allclose(streamed, sound.speech, atol=1e-4)


def test_usual_stereo_is_kept_as_it_is(tmp_path):
    left, right = bursts(seed=1), bursts(seed=2)
    sound = load_sound(write(tmp_path / "a.wav", np.stack([left, right])))
    assert sound.notes == ()
    rate, channels = played(tmp_path / "a.wav")
    np.testing.assert_allclose(channels, np.stack([left, right]), atol=1e-6)


def test_a_voice_in_the_centre_of_5_1_has_its_own_level(tmp_path):
    voice = bursts()
    channels = np.zeros((6, len(voice)), np.float32)
    channels[2] = voice
    path = write(tmp_path / "a.wav", channels)
    alone = load_audio(write(tmp_path / "one.wav", voice))
    assert 20 * np.log10(level(load_audio(path)) / level(alone)) == pytest.approx(0, abs=0.1)
    _, both = played(path)
    assert len(both) == 2 and 20 * np.log10(level(both[0]) / level(voice)) == pytest.approx(-3.01, abs=0.1)


@pytest.mark.parametrize("channel", range(6))
def test_no_channel_is_lost(tmp_path, channel):
    channels = np.zeros((6, RATE), np.float32)
    channels[channel] = bursts(1.0)
    path = write(tmp_path / "a.wav", channels)
    for heard in (load_audio(path), played(path)[1], np.concatenate(list(stream_audio(path)))):
        assert level(heard) > 0.3 * level(channels[channel])


def test_the_default_track_is_heard(tmp_path):
    music, voice = bursts(seed=1), bursts(seed=2)
    path = write(tmp_path / "a.mkv", music, voice, default=1, codec="flac")
    sound = load_sound(path)
    assert np.corrcoef(sound.speech, load_audio(write(tmp_path / "b.wav", voice)))[0, 1] > 0.99
    assert "2 audio tracks: number 2" in sound.notes[0]
    assert np.corrcoef(played(path)[1][0], voice)[0, 1] > 0.99
    assert np.corrcoef(np.concatenate(list(stream_audio(path))), sound.speech)[0, 1] > 0.99


@pytest.mark.parametrize(
    "scale, told",
    [
        (2.0**15, "16-bit whole numbers"),
        (2.0**23, "24-bit whole numbers"),
        (2.0**31, "32-bit whole numbers"),
        (5.0, "turned down by 14.0 dB"),
        (1.4, "turned down by 2.9 dB"),
    ],
)
def test_samples_beyond_full_scale_are_scaled_and_said(tmp_path, scale, told):
    voice = bursts()
    voice /= np.abs(voice).max()
    sound = load_sound(write(tmp_path / "a.wav", scale * voice))
    assert told in " ".join(sound.notes)
    np.testing.assert_allclose(sound.speech, load_audio(write(tmp_path / "one.wav", voice)), atol=1e-4)
    rate, blocks = sound.for_video()
    np.testing.assert_allclose(np.concatenate(list(blocks), axis=1)[0], voice, atol=1e-4)
    np.testing.assert_allclose(np.concatenate(list(stream_audio(tmp_path / "a.wav"))), sound.speech, atol=1e-4)


def test_samples_that_no_recording_has_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"a\.wav.*which no recording has"):
        load_audio(write(tmp_path / "a.wav", 1e12 * bursts()))


def test_sound_that_begins_after_the_pictures_is_where_it_belongs(tmp_path):
    voice = bursts(2.0)
    path = write(tmp_path / "a.mkv", voice, begins=1.5, pictures=4.0)
    truth = load_audio(write(tmp_path / "one.wav", voice))
    assert lag(load_audio(path), truth) == pytest.approx(1.5, abs=0.02)
    assert lag(load_audio(path, start=1.0), truth) == pytest.approx(0.5, abs=0.02)
    rate, channels = played(path)
    assert lag(channels[0], voice, rate) == pytest.approx(1.5, abs=0.02)
    assert level(load_audio(path, length=1.2)) == 0


def test_a_second_without_packets_is_a_second_of_silence(tmp_path):
    voice = bursts(6.0)
    write(tmp_path / "whole.mkv", voice)
    with av.open(str(tmp_path / "whole.mkv")) as given, av.open(str(tmp_path / "a.mkv"), "w") as gappy:
        stream = gappy.add_stream_from_template(given.streams.audio[0])
        for packet in given.demux(given.streams.audio[0]):
            if packet.size and not 2 <= float(packet.pts * packet.time_base) < 3:
                packet.stream = stream
                gappy.mux(packet)
    heard, whole = load_audio(tmp_path / "a.mkv"), load_audio(tmp_path / "whole.mkv")
    assert len(heard) == pytest.approx(len(whole), abs=320)
    assert level(heard[34000:46000]) < 0.01 * level(whole)
    assert lag(heard[56000:], whole[56000:]) == pytest.approx(0, abs=0.002)


FORMATS = [
    *[("a.wav", None, {}), ("a.flac", None, {}), ("a.m4a", None, {}), ("a.opus", None, {}), ("a.mkv", None, {})],
    *[("a.mp3", None, {"b": "96k"}), ("a.mp3", None, {"b": "0", "qscale:a": "4", "flags": "+qscale"})],
    *[("a.aac", "aac", {}), ("a.ogg", "libopus", {}), ("a.mp4", "aac", {}), ("a.aiff", "pcm_s16be", {})],
]


@pytest.mark.parametrize("name, codec, options", FORMATS)
def test_a_late_start_reads_what_a_full_decode_reads_and_skips_the_rest(tmp_path, monkeypatch, name, codec, options):
    path = write(tmp_path / name, bursts(40.0), codec=codec, options=options)
    whole = load_audio(path)
    frames = []
    resample = audio.SteadyResampler.resample
    monkeypatch.setattr(
        audio.SteadyResampler, "resample", lambda self, frame: frames.append(frame.samples) or resample(self, frame)
    )
    late = load_audio(path, start=31.25, length=2.0)
    truth = whole[500000:532000]
    assert len(late) == 32000 and abs(lag(late, truth)) < 1 / 1000  # Matroska's times are whole milliseconds
    shift = round(16000 * lag(late, truth))
    assert np.corrcoef(late[100 + shift : 31900 + shift], truth[100:31900])[0, 1] > 0.97
    assert sum(frames) < 6 * RATE, "little more than what is wanted is decoded"


def test_a_late_start_past_the_end_tells_the_length(tmp_path):
    for name in ("a.mp3", "a.m4a", "a.wav"):
        with pytest.raises(InputError, match=r"past the end of .*which lasts (9\.9|10\.)"):
            load_audio(write(tmp_path / name, bursts(10.0)), start=30)
