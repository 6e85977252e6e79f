"""Decoding in chunks: every frame once, borders that do not show, and memory that runs out."""

import json
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dicetalk.cli import main
from dicetalk.errors import InputError
from dicetalk.measure.chunks import chunk_rows, table
from dicetalk.model.settings import LATENT_SCALE
from dicetalk.sampling.decoding import (
    CONTEXT,
    context_frames,
    decode_in_chunks,
    fitting_chunk,
    plan_chunk,
)

FRAMES = 34


@pytest.fixture(scope="module")
def pipeline(tiny_checkpoint):
    from dicetalk.pipeline import DiceTalkPipeline

    return DiceTalkPipeline.from_checkpoint(str(tiny_checkpoint))


@pytest.fixture(scope="module")
def latents():
    """White noise: frames that differ as much as frames can, at the smallest size there is."""
    return torch.randn(FRAMES, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def at_once(pipeline, latents):
    (frames,) = pipeline.decode(latents, FRAMES)
    return frames


def numbered(count):
    return torch.arange(count, dtype=torch.float32)[:, None, None, None].expand(-1, 4, 32, 32)


@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 30), st.data())
def test_each_frame_wanted_comes_once(count, size, context, data):
    start = data.draw(st.integers(0, count))
    stop = data.draw(st.integers(start, count))
    seen = []

    def decode(window):
        seen.append(len(window))
        return window[:, 0, 0, 0]

    pieces = list(decode_in_chunks(decode, numbered(count), size, context, start, stop))
    assert torch.cat([torch.zeros(0), *pieces]).tolist() == list(range(start, stop))
    assert all(len(piece) <= size for piece in pieces)
    assert all(frames <= min(count, size + 2 * context_frames(size, 32, 32, context)) for frames in seen)


def test_a_chunk_has_its_context_within_the_clip():
    assert plan_chunk(10, 30, 10, 4) == (6, 10, 20, 24)
    assert plan_chunk(0, 30, 10, 4) == (0, 0, 10, 18), "as many frames as the others"
    assert plan_chunk(20, 23, 10, 4) == (12, 20, 23, 23)
    assert plan_chunk(0, 5, 10, 4) == (0, 0, 5, 5)


def test_only_very_small_pictures_and_chunks_need_more_context():
    assert [context_frames(size, 64, 64) for size in (1, 4, 10)] == [7, 6, CONTEXT]
    assert context_frames(10, 8, 8) == 8
    assert context_frames(1, 8, 8, 0) == 0


def test_borders_do_not_show(pipeline, latents, at_once):
    def difference(context):
        frames = torch.cat(list(pipeline.decode(latents, 10, context)))
        return (frames - at_once).abs().mean() * 255

    assert difference(CONTEXT) < 1
    assert difference(0) > 1, "without context they do"


def test_borders_of_the_smallest_chunks_do_not_show(pipeline, latents, at_once):
    def decode(window):
        with torch.no_grad():
            return pipeline.vae.decode(window / LATENT_SCALE, num_frames=len(window)).sample.div(2).add(0.5).clamp(0, 1)

    frames = torch.cat(list(decode_in_chunks(decode, latents, 1, start=15, stop=18)))
    assert (frames - at_once[15:18]).abs().mean() * 255 < 1


def test_trimmed_frames_are_those_of_the_whole_clip(pipeline, latents):
    def decode(window):
        return pipeline.vae.decode(window, num_frames=len(window)).sample

    with torch.no_grad():
        whole = torch.cat(list(decode_in_chunks(decode, latents[:12], 4, 0)))
        part = torch.cat(list(decode_in_chunks(decode, latents[:12], 4, 0, start=3, stop=9)))
    assert torch.equal(part, whole[3:9])


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA error: out of memory"), torch.OutOfMemoryError()])
def test_chunks_are_halved_when_memory_runs_out(error, caplog):
    tried, released = [], []

    def decode(window):
        tried.append(len(window))
        if len(window) > 4 and len(tried) > 2:  # the first two still fit
            raise error
        return window[:, 0, 0, 0]

    frames = decode_in_chunks(decode, numbered(40), 10, 1, release=lambda: released.append(True))
    assert torch.cat(list(frames)).tolist() == list(range(40))
    assert tried[:6] == [16, 16, 16, 7, 4, 4] and len(released) == 2
    assert "chunks of 5" in caplog.text and "chunks of 2" in caplog.text


def test_frames_decoded_for_each_that_is_kept_are_within_their_targets():
    """At 512×512 in float16, with 1 GB of the card in use."""
    rows = {row["card"]: row for row in chunk_rows()}
    assert all(row["context"] == CONTEXT for row in rows.values())
    most = {8: 2.0, 12: 1.5, 24: 1.25, 32: 1.15, 80: 1.15}
    assert all(rows[card]["decoded"] <= ratio == rows[card]["target"] for card, ratio in most.items())


@given(st.integers(-5, 200), st.integers(1, 100), st.integers(0, 29))
def test_a_chunk_fits_and_no_frame_is_decoded_more_than_three_times(fits, size, context):
    chosen, around = fitting_chunk(fits, size, context)
    assert 1 <= chosen <= size and 0 <= around <= context
    assert chosen + 2 * around <= max(fits, 1) and (chosen + 2 * around <= 3 * chosen or chosen == size)


@pytest.mark.parametrize(("free", "sizes"), [(1e12, [FRAMES]), (20 * 0.95, [20, 20, 18]), (0.95, [1] * FRAMES)])
def test_the_pipeline_decodes_what_free_memory_suffices_for(pipeline, latents, monkeypatch, free, sizes):
    monkeypatch.setattr("dicetalk.pipeline.free_memory", lambda device: free)
    monkeypatch.setattr("dicetalk.pipeline.frame_bytes", lambda *shape: 0.95)
    decode, seen = pipeline.vae.decode, []
    monkeypatch.setattr(pipeline.vae, "decode", lambda x, **options: seen.append(len(x)) or decode(x, **options))
    frames = torch.cat(list(pipeline.decode(latents)))
    assert len(frames) == FRAMES and seen == sizes


def with_memory_for(most):
    """A decoder of no more than so many frames at once, and a list of how many it was given each time."""
    tried = []

    def decode(window):
        tried.append(len(window))
        if len(window) > most:
            raise MemoryError
        return window[:, 0, 0, 0]

    return decode, tried


def test_context_shrinks_to_what_is_asked_for_before_memory_does_not_suffice():
    decode, tried = with_memory_for(9)
    assert torch.cat(list(decode_in_chunks(decode, numbered(40), 1))).tolist() == list(range(40))
    assert tried[0] > 9 and set(tried[1:]) == {9}
    tried.clear()
    assert torch.cat(list(decode_in_chunks(decode, numbered(40), 1, fits=9))).tolist() == list(range(40))
    assert set(tried) == {9}


def test_no_piece_is_empty_when_chunks_are_halved_before_the_first_frame_wanted():
    decode, _ = with_memory_for(14)
    pieces = list(decode_in_chunks(decode, numbered(40), 10, start=18, stop=30))
    assert all(len(piece) for piece in pieces) and torch.cat(pieces).tolist() == list(range(18, 30))


def test_one_error_when_not_even_one_frame_fits():
    decode, _ = with_memory_for(0)
    with pytest.raises(InputError, match="one frame of 256×256 pixels: close.*or pray"):
        list(decode_in_chunks(decode, numbered(40), 10, remedy="pray"))


def test_context_goes_before_memory_is_said_not_to_suffice(caplog):
    decode, tried = with_memory_for(3)
    assert torch.cat(list(decode_in_chunks(decode, numbered(40), 2))).tolist() == list(range(40))
    assert tried[-1] == 3 and sorted(set(tried), reverse=True) == [16, 9, 5, 3]
    assert "chunks of 1 from here on, with a context of 1 to either side, so that their borders may show" in caplog.text


def test_other_errors_are_not_taken_for_it():
    def decode(window):
        raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        list(decode_in_chunks(decode, numbered(40), 10))


def test_the_pipeline_goes_on_with_smaller_chunks(pipeline, latents, at_once, monkeypatch):
    decode = pipeline.vae.decode

    def short_of_memory(window, **options):
        if len(window) > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(window, **options)

    monkeypatch.setattr(pipeline.vae, "decode", short_of_memory)
    frames = torch.cat(list(pipeline.decode(latents, FRAMES)))
    assert frames.shape == at_once.shape
    assert (frames - at_once).abs().mean() < 2 / 255


def test_the_bench_shows_what_context_leaves_of_the_borders(capsys):
    assert main(["bench", "--decode", "--tiny", "--frames", "12", "--device", "cpu", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    ones = {row["context"]: row["mean"] for row in rows if row["chunk"] == 1}
    assert ones[0] > 10 > ones[3] > ones[5] > ones[29] == 0, "the context of 29 is the whole clip here"
    assert [row["context"] for row in rows if row["chosen"]] == [12, 8]


def test_the_bench_shows_frames_decoded_and_memory_with_their_targets():
    lines = table().splitlines()
    assert re.search(r"takes 0\.40\d GB, counted \(target 0\.41\)", lines[0])
    assert [line.split()[0] for line in lines[2:]] == ["8", "12", "24", "32", "80"]
