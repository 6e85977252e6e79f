"""A batch on a real local Ray cluster of two nodes: interrupted, and then one of them is killed in the middle."""

import signal
import time
from collections import defaultdict

import numpy as np
import pytest
from project import DEMO
from small_jobs import job, left_over, pictures

from dicetalk.batch.cluster import Worker, _clean, _starter, run_on_ray
from dicetalk.batch.engine import DONE, FAILED, SKIPPED, Outcome
from dicetalk.batch.rows import Row
from dicetalk.errors import InputError
from dicetalk.rendering import render

CLIPS, INTERRUPTED_AFTER = 21, 5


@pytest.fixture
def cluster(monkeypatch):
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # A busy machine is no reason to give a node or a process up.
    monkeypatch.setenv("RAY_worker_register_timeout_seconds", "240")
    monkeypatch.setenv("RAY_health_check_failure_threshold", "24")
    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    cluster.second = cluster.add_node(**node)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.timeout(1200)
def test_ctrl_c_and_a_node_that_dies_cost_no_clip(tmp_path, tiny_checkpoint, cluster, one_thread):
    """24 rows, three of them bad: Ctrl-C ends the first run; the same rows run again, and one of two nodes is killed.

    Each video is compared with that of a single run. `clamp_windows` saves time.
    """
    rows = [Row(number, small(tmp_path, tiny_checkpoint, f"{number}.mp4", seed=number)) for number in range(CLIPS)]
    bad = {"audio": DEMO / "portrait.jpg"}, {"emotion": "hapy"}
    rows[2:2] = [Row(100 + n, small(tmp_path, tiny_checkpoint, f"{100 + n}.mp4", **more)) for n, more in enumerate(bad)]
    rows.append(Row(102, problem="row 102: it is bad."))
    assert len(rows) == 24

    before = []

    def interrupt(outcome):
        before.append(outcome)
        if sum(each.status == DONE for each in before) == INTERRUPTED_AFTER:
            signal.raise_signal(signal.SIGINT)  # what Ctrl-C does

    with pytest.raises(KeyboardInterrupt):
        run_on_ray(rows, interrupt, workers=2)
    there = {int(path.stem) for path in tmp_path.glob("*.mp4")}
    assert {each.row for each in before if each.status == DONE} <= there and len(there) < CLIPS - 2
    assert not [name for name in left_over(tmp_path) if not name.endswith(".resume")]

    outcomes, killed = [], []

    def kill(outcome):
        outcomes.append(outcome)
        if killed or outcome.status != DONE:
            return
        if outcome.worker.startswith(cluster.second.node_id[:8]):
            killed.append({each.row for each in outcomes})
            cluster.remove_node(cluster.second, allow_graceful=False)
        else:
            time.sleep(2)  # the other node is given time to start, before all rows are made

    windows = defaultdict(list)
    run_on_ray(rows, kill, workers=2, on_windows=lambda worker, count: windows[worker].append(count))

    assert killed and not set(range(CLIPS)) <= killed[0]
    assert sorted(outcome.row for outcome in outcomes) == sorted(row.number for row in rows)
    status = {outcome.row: outcome.status for outcome in outcomes}
    assert {status[number] for number in there} == {SKIPPED}
    assert {status[number] for number in set(range(CLIPS)) - there} <= {DONE, SKIPPED}
    reasons = {outcome.row: outcome.reason for outcome in outcomes if outcome.status == FAILED}
    assert sorted(reasons) == [100, 101, 102]
    assert "no audio track" in reasons[100] and "did you mean happy" in reasons[101]
    assert reasons[102] == "row 102: it is bad."
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{number}.mp4" for number in range(CLIPS))

    assert windows and all(sorted(counts) == counts for counts in windows.values())
    here = tmp_path / "here"
    here.mkdir()
    made = [pictures(tmp_path / f"{number}.mp4") for number in range(CLIPS)]
    for number in range(CLIPS):
        alone = small(here, tiny_checkpoint, f"{number}.mp4", seed=number)
        render(alone, say=lambda text: None)
        assert np.array_equal(made[number], pictures(alone.output)), number
        assert number == 0 or not np.array_equal(made[number], made[number - 1])


def small(*args, **changes):
    """A clip of two frames in one step, which computes no other frames."""
    return job(*args, steps=1, length=0.16, clamp_windows=True, **changes)


def test_what_a_dead_worker_leaves_of_several_seeds_is_removed(tmp_path, tiny_checkpoint):
    clip = job(tmp_path, tiny_checkpoint, "a.mp4", seed=3, best_of=2)
    for name in ("a.mp4.seed3.resume", "a.mp4.seed4.resume"):
        (tmp_path / name).touch()
    _clean((1, clip), Outcome(1, SKIPPED, clip.output))
    assert left_over(tmp_path) == []


def test_without_ray_it_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="pip install ray, or leave out --workers"):
        run_on_ray([], print)


@pytest.mark.parametrize(
    "resources, asked, workers, gpus, cpus, threads",
    [
        ({"CPU": 2}, 4, 4, 0, 0.5, 1),
        ({"CPU": 8}, None, 3, 0, 1, 2),  # one for each machine that is there
        ({"CPU": 2, "GPU": 4}, None, 4, 1, 0.5, None),
        ({"CPU": 64, "GPU": 4}, 2, 2, 1, 1, None),
    ],
)
def test_as_many_workers_start_as_are_asked_for(resources, asked, workers, gpus, cpus, threads):
    class Ray:
        cluster_resources = staticmethod(lambda: resources)
        nodes = staticmethod(lambda: [{"Alive": alive} for alive in (True, True, False, True)])
        options = staticmethod(lambda **options: given.update(options) or Ray)

    given, started = {}, []
    Ray.remote = staticmethod(lambda *arguments: Ray if arguments == (Worker,) else started.append(arguments))
    count, start = _starter(Ray, asked)
    start()
    assert (count, started) == (workers, [(threads,)])
    assert (given["num_gpus"], given["num_cpus"]) == (gpus, cpus)
