"""mpire: a pool whose tasks and results go through joinable queues, one for each worker and one for all results."""

import sys

from mpire import WorkerPool


def prepare(state):
    state["base"] = 1000


def work(state, number):
    if number == 13:
        raise RuntimeError("thirteen")
    return state["base"] + number * number


def plain(number, factor=2):
    return number * factor


if __name__ == "__main__":
    method = sys.argv[1]
    with WorkerPool(n_jobs=3, use_worker_state=True, start_method=method) as pool:
        print(pool.map(work, range(12), worker_init=prepare, chunk_size=2))
        print(sorted(pool.imap_unordered(work, range(12), worker_init=prepare, max_tasks_active=4)))
    with WorkerPool(n_jobs=2, start_method=method, keep_alive=True) as pool:
        print(pool.map(plain, [(1, 3), (2, 4)]), pool.map(plain, [5, 6], worker_lifespan=1))
        print(pool.apply(plain, (7,)), [found.get() for found in [pool.apply_async(plain, (n,)) for n in range(20)]])
    try:
        with WorkerPool(n_jobs=2, use_worker_state=True, start_method=method) as pool:
            pool.map(work, range(20), worker_init=prepare)
    except RuntimeError as error:
        print(type(error).__name__, str(error.__cause__ or error).strip().splitlines()[-1])
