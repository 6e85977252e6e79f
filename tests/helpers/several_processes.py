"""Runs a function in several processes that form a gloo group, and gives back what each returns."""

import multiprocessing
import traceback


def run(function, processes, folder):
    """What `function(rank)` returns in each process; an exception comes back as its text."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [
        context.Process(target=_work, args=(function, rank, processes, str(folder / "meeting"), results))
        for rank in range(processes)
    ]
    for worker in workers:
        worker.start()
    try:
        given = dict(results.get(timeout=1500) for _ in workers)
    finally:
        for worker in workers:
            worker.join(20)
            worker.kill()
    return [given[rank] for rank in range(processes)]


def _work(function, rank, processes, meeting, results):
    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=processes)
    try:
        results.put((rank, function(rank)))
    except BaseException:
        results.put((rank, traceback.format_exc()))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
