"""What processes exchange: predictions of windows and of branches, and decoded chunks. No network is needed for it."""

import numpy as np
import pytest
import torch
from several_processes import run

from dicetalk.errors import InputError
from dicetalk.sampling.guidance import BRANCHES, guide
from dicetalk.sampling.processes import decoded_by_all, least_of_all, predicted_by_all, traffic
from dicetalk.sampling.windows import joined, windows

PROCESSES = 3


def predict(frames, branches):
    """Numbers that depend on the frame and the branch, and on nothing else."""
    made = {}
    for branch in branches:
        rows = [
            torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(100 * frame + len(branch))) for frame in frames
        ]
        made[branch] = torch.stack(rows)
    return made


def guided(parts):
    return guide(parts, 3.0, 6.0)


def with_what_is_kept(parts):
    return torch.cat([guided(parts), parts[BRANCHES[-1]]], dim=1)


def of_step(step, frames=60):
    """Windows and latents: four windows, of which three processes compute one each and a branch of the last."""
    return windows(frames + 25, step), torch.zeros(frames + 25, 4, 3, 3)


def decode(start, stop):
    return torch.arange(start, stop, dtype=torch.float32)[:, None].expand(-1, 2).clone()


def work(rank):
    """Everything that processes do together, in one start of them."""
    calls = []

    def counted(frames, branches):
        calls.append(len(branches))
        return predict(frames, branches)

    steps = []
    for step in range(3):
        calls.append(0)
        steps.append(predicted_by_all(of_step(step)[0], BRANCHES, of_step(step)[1], counted, guided).numpy())
    least = least_of_all(rank + 5), least_of_all(None if rank == 1 else 3)
    chunks = [(0, 4), (4, 8), (8, 12), (12, 14)]
    frames = [chunk.numpy() for chunk in decoded_by_all(chunks, decode, (2,))]
    text, size = traffic.text(), traffic.size
    kept = predicted_by_all(of_step(0)[0], BRANCHES, of_step(0)[1], predict, with_what_is_kept, 2).numpy()

    def failing(start, stop):
        return decode(start, stop) if start == 0 else 1 / 0

    try:
        list(decoded_by_all(chunks[:2], failing, (2,)))
        failure = None
    except (InputError, ZeroDivisionError) as error:
        failure = str(error)
    return {
        "steps": steps,
        "kept": kept,
        "calls": calls,
        "least": least,
        "frames": frames,
        "failure": failure,
        "said": (text, size),
    }


@pytest.mark.timeout(600)
def test_processes_have_the_latents_and_the_first_one_the_frames_of_one_process(tmp_path):
    results = run(work, PROCESSES, tmp_path)
    assert all(isinstance(result, dict) for result in results), results
    for step in range(3):
        plan, latents = of_step(step)
        alone = joined(plan, latents, lambda frames: [guided(predict(frames, BRANCHES))])[0].numpy()
        assert len(plan) == 4 and all(np.array_equal(result["steps"][step], alone) for result in results)
    plan, latents = of_step(0)
    like = latents.repeat(1, 2, 1, 1)
    alone = joined(plan, like, lambda frames: [with_what_is_kept(predict(frames, BRANCHES))])[0].numpy()
    assert all(np.array_equal(result["kept"], alone) for result in results)
    assert [result["calls"] for result in results] == [[0, 3, 1] * 3] * PROCESSES
    assert {result["least"] for result in results} == {(5, None)}
    first, *others = results
    assert np.array_equal(np.concatenate(first["frames"]), decode(0, 14).numpy())
    assert [result["frames"] for result in others] == [[], []]
    assert first["failure"] == "Process 1 could not decode its frames, and says why in its own message."
    assert [result["failure"] for result in others] == ["division by zero", None]
    text, size = first["said"]
    assert text.startswith("3 processes: communication took ") and "waiting for other processes" in text
    floats = 85 * (4 * 9 + 1) + 3 * 25 * 36  # latents with counts, and the branches of the window that is shared
    assert size == 3 * 4 * floats
