"""A burst of 100 items and 4 Nones for 4 workers, each of which waits for the others once it has met its None.

If a queue hands a worker more than the worker asked for, this barrier is never passed: one worker has another's None.
"""

import argparse
import multiprocessing
from multiprocessing import Queue

WORKERS = 4
ITEMS = 100
PATIENCE = 60  # seconds at the barrier after which something is wrong


def work(queue, results, barrier):
    taken = list(iter(queue.get, None))
    barrier.wait(PATIENCE)
    results.put(taken)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--method", choices=multiprocessing.get_all_start_methods())
    args = parser.parse_args()
    if args.method:
        multiprocessing.set_start_method(args.method)

    queue = Queue()
    results = Queue()
    barrier = multiprocessing.Barrier(WORKERS)
    workers = [multiprocessing.Process(target=work, args=(queue, results, barrier)) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for item in range(ITEMS):
        queue.put(item)
    for _ in workers:
        queue.put(None)
    shares = [results.get() for _ in workers]
    for worker in workers:
        worker.join()

    items = sorted(item for share in shares for item in share)
    print(f"{len(shares)} workers passed the barrier")
    print(f"{len(items)} items, each once: {items == list(range(ITEMS))}")
    print(f"in order: {all(share == sorted(share) for share in shares)}")


if __name__ == "__main__":
    main()
