"""Threads and processes on both ends of one queue."""

import argparse
import multiprocessing
import threading
from tqshim import TurboQueue as Queue

EACH = 300  # items from each of two processes and two threads
KINDS = ("process", "thread")


def produce(queue, kind, number):
    for item in range(EACH):
        queue.put((kind, number, item))


def consume(queue, results):
    results.put(list(iter(queue.get, None)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=multiprocessing.get_all_start_methods())
    args = parser.parse_args()
    if args.method:
        multiprocessing.set_start_method(args.method)

    queue = Queue()
    results = Queue()
    # Processes first: a process that runs threads should not fork.
    start = {"process": multiprocessing.Process, "thread": threading.Thread}
    producers, consumers = [], []
    for kind in KINDS:
        for number in range(2):
            producers.append(start[kind](target=produce, args=(queue, kind, number)))
            consumers.append(start[kind](target=consume, args=(queue, results)))
            producers[-1].start()
            consumers[-1].start()
    for producer in producers:
        producer.join()
    for _ in consumers:
        queue.put(None)
    taken = [results.get() for _ in consumers]
    for consumer in consumers:
        consumer.join()

    items = sorted(item for share in taken for item in share)
    for kind in KINDS:
        for number in range(2):
            own = [item for item in items if item[:2] == (kind, number)]
            print(f"{kind} {number}: {len(own)} items, {len(set(own))} different, sum {sum(item[2] for item in own)}")
    print(f"{len(items)} items in {len(taken)} shares")
    print(f"in order: {all(share_in_order(share) for share in taken)}")


def share_in_order(share):
    """Tell whether one consumer saw each producer's items in the order in which they were put."""
    last = {}
    for kind, number, item in share:
        if item <= last.get((kind, number), -1):
            return False
        last[kind, number] = item
    return True


if __name__ == "__main__":
    main()
