"""A batch on a real local Ray cluster of two nodes, of which one is killed in the middle."""

import numpy as np
import pytest
import torch
from project import DEMO
from small_jobs import job, left_over, pictures

from dicetalk.batch.cluster import _clean, run_on_ray
from dicetalk.batch.engine import DONE, FAILED, SKIPPED, Outcome
from dicetalk.batch.rows import Row
from dicetalk.errors import InputError
from dicetalk.rendering import render

CLIPS, COMPARED = 9, 3  # as many as a busy machine makes in some minutes


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


@pytest.fixture
def one_thread():
    """As many as each worker has: another number changes the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.timeout(1200)
def test_a_node_that_dies_costs_no_clip(tmp_path, tiny_checkpoint, cluster, one_thread):
    rows = [Row(number, job(tmp_path, tiny_checkpoint, f"{number}.mp4", seed=number)) for number in range(CLIPS)]
    bad = {"audio": DEMO / "portrait.jpg"}, {"emotion": "hapy"}
    rows[2:2] = [Row(100 + n, job(tmp_path, tiny_checkpoint, f"{100 + n}.mp4", **more)) for n, more in enumerate(bad)]
    rows.append(Row(102, problem="row 102: it is bad."))
    outcomes, killed = [], []

    def on_outcome(outcome):
        outcomes.append(outcome)
        if outcome.status == DONE and outcome.worker == cluster.second.node_id[:8] and not killed:
            killed.append(len(outcomes))
            cluster.remove_node(cluster.second, allow_graceful=False)

    run_on_ray(rows, on_outcome, workers=2)

    assert killed and killed[0] < len(rows)
    assert sorted(outcome.row for outcome in outcomes) == sorted(row.number for row in rows)
    made = [outcome for outcome in outcomes if outcome.row < 100]
    assert {outcome.status for outcome in made} <= {DONE, SKIPPED}
    reasons = {outcome.row: outcome.reason for outcome in outcomes if outcome.status == FAILED}
    assert sorted(reasons) == [100, 101, 102]
    assert "no audio track" in reasons[100] and "did you mean happy" in reasons[101]
    assert left_over(tmp_path) == []
    for number in range(0, CLIPS, CLIPS // COMPARED):
        render(job(tmp_path, tiny_checkpoint, "alone.mp4", seed=number), say=lambda text: None)
        assert np.array_equal(pictures(tmp_path / f"{number}.mp4"), pictures(tmp_path / "alone.mp4"))


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
