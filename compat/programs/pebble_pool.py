"""pebble: a pool whose tasks run out of time or die; what they say meanwhile comes through a queue of the program's."""

import multiprocessing
import os
import signal
import sys
import time
from concurrent.futures import TimeoutError

from pebble import ProcessExpired, ProcessPool, concurrent

said = None


def prepare(queue):
    global said
    said = queue


def work(number):
    said.put(number)
    if number == 3:
        time.sleep(60)
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


@concurrent.process
def alone(number):
    return number + 1


if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    queue = context.SimpleQueue()  # a worker that is killed takes with it what the stdlib's other queue has not sent
    with ProcessPool(max_workers=1, initializer=prepare, initargs=(queue,), context=context) as pool:
        found = []
        for number in range(8):
            try:
                found.append(pool.schedule(work, args=[number], timeout=1 if number == 3 else 30).result())
            except (TimeoutError, ProcessExpired) as error:
                found.append(type(error).__name__)
    print(found, [queue.get() for _ in range(8)], alone(1).result())
