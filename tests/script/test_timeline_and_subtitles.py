import av
import numpy as np
import pytest

from dicetalk.emotion.text import format_text, parse_text
from dicetalk.errors import InputError
from dicetalk.media.video import Encoding, write_video
from dicetalk.script.subtitles import Cue, cues_of, parse_srt, to_srt, write_srt
from dicetalk.script.text import parse_script
from dicetalk.script.timeline import script_timeline
from dicetalk.script.words import Word


def timed(text, seconds=0.5, gap=0.0):
    """A script, and words that take as long each."""
    script = parse_script(text)
    words = [
        Word(word.text, place * (seconds + gap), place * (seconds + gap) + seconds, word.spaced)
        for place, word in enumerate(script.words)
    ]
    return script, words


@pytest.mark.parametrize(
    ("text", "fade", "timeline"),
    [
        ("[happy] a b [sad 0.7] c", 0.4, "0s happy; 0.6s happy; 1s sad:0.7 smooth"),
        ("a b [sad] c", 0.4, "0s neutral; 0.6s neutral; 1s sad smooth"),
        ("a b [sad] c", 0.0, "0s neutral; 1s sad step"),
        ("[happy] a [sad] b", 2.0, "0s happy; 0.5s sad smooth"),
        ("[happy] a b [neutral]", 0.4, "0s happy; 1s happy; 1.4s neutral smooth"),
        ("[happy] a [happy] b [sad] c", 0.4, "0s happy; 0.6s happy; 1s sad smooth"),
        ("a b c", 0.4, "0s neutral"),
        ("[happy] a [sad] b [fear] c", 0.5, "0s happy; 0.5s sad smooth; 1s fear smooth"),
    ],
)
def test_timelines(text, fade, timeline):
    made = script_timeline(*timed(text), fade=fade)
    assert format_text(made) == timeline
    assert parse_text(timeline) == made


def test_words_at_one_time_still_make_a_timeline():
    script = parse_script("[happy] a [sad] b [fear] c")
    made = script_timeline(script, [Word(text, 0.0, 0.0) for text in "abc"])
    assert parse_text(format_text(made)) == made
    with pytest.raises(InputError, match="fade of a script"):
        script_timeline(script, [Word(text, 0.0, 0.0) for text in "abc"], fade=-1)


def test_cues_end_with_sentences_pauses_and_length():
    _, words = timed("Hello there. I have to go now, because it is late. “Bye!” he said.")
    assert [cue.text for cue in cues_of(words)] == [
        "Hello there.",
        "I have to go now, because it is late.",
        "“Bye!”",
        "he said.",
    ]
    _, words = timed("one two three", gap=1.0)
    assert [(cue.start, cue.end) for cue in cues_of(words)] == [(0.0, 1.0), (1.5, 2.5), (3.0, 4.0)]
    _, words = timed("word " * 60, seconds=0.2)
    for cue in cues_of(words):
        lines = cue.text.split("\n")
        assert len(lines) <= 2 and all(len(line) <= 42 for line in lines) and cue.end - cue.start <= 7.0
    _, words = timed("你好。再见")
    assert [cue.text for cue in cues_of(words)] == ["你好。", "再见"]


def test_srt_is_written_and_read_back(tmp_path):
    cues = [Cue(0.0, 1.25, "Hello\nthere ü"), Cue(3661.5, 3662.0, "Go.")]
    text = to_srt(cues)
    assert text == ("1\n00:00:00,000 --> 00:00:01,250\nHello\nthere ü\n\n2\n01:01:01,500 --> 01:01:02,000\nGo.\n")
    assert parse_srt(text) == cues
    write_srt(tmp_path / "a.srt", cues)
    assert (tmp_path / "a.srt").read_bytes() == text.encode()
    with av.open(str(tmp_path / "a.srt")) as container:  # as FFmpeg reads it
        packets = [packet for packet in container.demux() if packet.size]
        assert [float(packet.pts * packet.time_base) for packet in packets] == [0.0, 3661.5]
    for wrong in ("", "Hello", "1\n00:00:02,000 --> 00:00:01,000\nBack\n", None):
        with pytest.raises(InputError, match="The subtitles"):
            parse_srt(wrong)


@pytest.mark.parametrize(("container", "codec"), [("mp4", "mov_text"), ("mkv", "srt"), ("webm", "webvtt")])
def test_a_video_holds_its_subtitles(tmp_path, container, codec):
    path = tmp_path / f"out.{container}"
    cues = [Cue(0.2, 0.9, "Hello\nthere ü"), Cue(1.5, 2.0, "Go."), Cue(9.0, 9.5, "too late")]
    frames = [np.zeros((64, 64, 3), np.uint8)] * 50
    encoding = Encoding(container, "av1" if container == "webm" else "h264", crf=40)
    assert write_video(path, frames, 25, np.zeros(32000), 16000, encoding=encoding, subtitles=cues) == 50
    with av.open(str(path)) as video:
        (stream,) = video.streams.subtitles
        assert stream.codec_context.name == codec
        found = []
        for packet in video.demux(stream):
            text = bytes(packet)[2 if codec == "mov_text" else 0 :].decode()
            if text:
                found.append((float(packet.pts * packet.time_base), float(packet.duration * packet.time_base), text))
    assert found == [(0.2, pytest.approx(0.7), "Hello\nthere ü"), (1.5, 0.5, "Go.")]
    with av.open(str(path)) as video:
        assert sum(1 for _ in video.decode(video=0)) == 50


def test_an_older_pyav_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(av.container, "OutputContainer", type("Older", (), {}))
    with pytest.raises(InputError, match="need PyAV 17"):
        write_video(tmp_path / "out.mp4", [np.zeros((64, 64, 3))], 25, subtitles=[Cue(0, 1, "x")])
    assert not list(tmp_path.iterdir())
