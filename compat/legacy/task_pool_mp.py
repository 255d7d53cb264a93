"""A pool of workers between two queues: tasks of one length go in, their results come out.

The length of a task decides what the queues cost beside it: ``--turns`` sets it, a hundredth of a microsecond each.
"""

import argparse
import multiprocessing
from multiprocessing import Queue


def compute(number, turns):
    """Use the processor for so many turns; return a number that depends on the arguments alone."""
    return number + sum(range(turns))


def work(tasks, results, turns):
    for number in iter(tasks.get, None):
        results.put((number, compute(number, turns)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--method", choices=multiprocessing.get_all_start_methods())
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--tasks", type=int, default=2000, help="how many there are (default: 2000)")
    parser.add_argument("--turns", type=int, default=1000, help="the length of each (default: 1000)")
    args = parser.parse_args()
    if args.method:
        multiprocessing.set_start_method(args.method)

    tasks = Queue()
    results = Queue()
    workers = [multiprocessing.Process(target=work, args=(tasks, results, args.turns)) for _ in range(args.workers)]
    for worker in workers:
        worker.start()
    for number in range(args.tasks):
        tasks.put(number)
    for _ in workers:
        tasks.put(None)
    answers = dict(results.get() for _ in range(args.tasks))
    for worker in workers:
        worker.join()

    right = sum(answer == number + args.turns * (args.turns - 1) // 2 for number, answer in answers.items())
    print(f"{len(answers)} tasks, {right} of them right")


if __name__ == "__main__":
    main()
