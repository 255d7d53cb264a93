"""A little framework for background work: named handlers, workers, retries, results that come back on a queue."""

import argparse
import collections
import dataclasses
import multiprocessing
import queue
import traceback
from tqshim import TurboQueue as Queue

POLL = 0.2  # seconds after which a worker checks whether it is to stop
ATTEMPTS = 3
HANDLERS = {}


@dataclasses.dataclass
class Task:
    number: int
    handler: str
    args: tuple
    attempt: int = 1


@dataclasses.dataclass
class Result:
    task: Task
    worker: str
    value: object = None
    error: str = ""


def handler(function):
    """Make a function known by its name."""
    HANDLERS[function.__name__] = function
    return function


class Worker(multiprocessing.Process):
    """Take tasks, call their handlers, report: until told to stop."""

    def __init__(self, tasks, results, stop, name):
        super().__init__(name=name)
        self.tasks = tasks
        self.results = results
        self.stop = stop

    def run(self):
        while not self.stop.is_set():
            try:
                task = self.tasks.get(timeout=POLL)
            except queue.Empty:
                continue
            if task is None:
                break
            result = Result(task, self.name)
            try:
                result.value = HANDLERS[task.handler](*task.args, attempt=task.attempt)
            except Exception:
                result.error = traceback.format_exc(limit=0).strip()
            self.results.put(result)


class Farm:
    """Workers, and the two queues between them and the program."""

    def __init__(self, workers):
        self.tasks = Queue()
        self.results = Queue()
        self.stop = multiprocessing.Event()
        self.workers = [Worker(self.tasks, self.results, self.stop, f"worker-{n}") for n in range(workers)]
        self.submitted = 0
        self.retried = 0

    def __enter__(self):
        for worker in self.workers:
            worker.start()
        return self

    def __exit__(self, kind, error, trace):
        if error is not None:
            self.stop.set()
        for _ in self.workers:
            self.tasks.put(None)
        for worker in self.workers:
            worker.join()

    def submit(self, name, *args):
        self.tasks.put(Task(self.submitted, name, args))
        self.submitted += 1

    def as_completed(self):
        """Yield the result of each task; one that failed is tried again before it counts as failed."""
        open_tasks = self.submitted
        while open_tasks:
            result = self.results.get(timeout=60)
            task = result.task
            if result.error and task.attempt < ATTEMPTS:
                self.retried += 1
                self.tasks.put(dataclasses.replace(task, attempt=task.attempt + 1))
                continue
            open_tasks -= 1
            yield result


@handler
def collatz(start, attempt):
    """How many steps it takes to 1."""
    steps = 0
    while start != 1:
        start = 3 * start + 1 if start % 2 else start // 2
        steps += 1
    return steps


@handler
def flaky(number, attempt):
    """Fail the first time, and each time for some numbers."""
    if attempt == 1 or number % 5 == 0:
        raise ConnectionError(f"number {number} is not to be had")
    return number


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=multiprocessing.get_all_start_methods())
    args = parser.parse_args()
    if args.method:
        multiprocessing.set_start_method(args.method)

    totals, failures = collections.Counter(), collections.Counter()
    with Farm(workers=3) as farm:
        for number in range(1, 601):
            farm.submit("collatz", number)
            if number % 10 == 0:
                farm.submit("flaky", number // 10)
        for result in farm.as_completed():
            if result.error:
                failures[result.error.splitlines()[-1].partition(":")[0]] += 1
            else:
                totals[result.task.handler] += result.value

    print(f"{farm.submitted} tasks, {farm.retried} tried again, {sum(failures.values())} failed")
    for name, total in sorted(totals.items()):
        print(f"{name:8} {total}")
    for error, count in failures.items():
        print(f"{error}: {count}")


if __name__ == "__main__":
    main()
