"""A short soak, and memory over queued runs; `python dev.py soak` runs the long one."""

import random

import soak

JOBS = 20
RUNS = 20
SIZES = (64, 64, 128)  # what a run may leave behind are models and caches, as large for small pictures


def test_random_jobs_finish_or_are_cancelled_and_memory_stays(server):
    report = soak.soak(server, JOBS, seed=2, sizes=SIZES)
    found = report.table()
    assert report.count("failed") == 0, found
    assert report.count("finished") + report.count("cancelled") == JOBS, found
    assert report.count("finished") > JOBS / 2 and report.count("cancelled") > 0, found
    if report.growth >= soak.ALLOWED_GROWTH:  # what is loaded or kept once is no leak: a leak grows on
        further = soak.soak(server, JOBS, seed=4, sizes=SIZES)
        assert further.growth < soak.ALLOWED_GROWTH, f"{found}\n\n{further.table()}"
    assert max(report.responses) < 10, found


def test_twenty_runs_with_different_inputs_leave_memory_where_the_second_left_it(server):
    jobs = soak.random_jobs(random.Random(3), RUNS, ["sampler"], [None], seconds=0.3, sizes=SIZES)
    soak.run(server, jobs[:2])
    second = soak.settled_ram(server)
    soak.run(server, jobs[2:])
    last = soak.settled_ram(server)
    assert all(job.outcome == "finished" for job in jobs)
    assert last - second < soak.ALLOWED_GROWTH, f"{second:.0f} MB, then {last:.0f} MB"
