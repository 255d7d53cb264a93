"""A Pool whose workers get a queue through the initializer and report on it beside their return values."""

import argparse
import multiprocessing
from multiprocessing import Queue

WORKERS = 3
reports = None  # each worker's handle, set by initialize()


def initialize(queue):
    global reports
    reports = queue


def factorise(number):
    rest, divisor, factors = number, 2, []
    while rest > 1:
        while rest % divisor == 0:
            factors.append(divisor)
            rest //= divisor
        divisor += 1
    reports.put((number, len(factors)))
    return factors


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=multiprocessing.get_all_start_methods())
    args = parser.parse_args()
    if args.method:
        multiprocessing.set_start_method(args.method)

    numbers = range(2, 302)
    queue = Queue()
    pool = multiprocessing.Pool(WORKERS, initializer=initialize, initargs=(queue,))
    factors = pool.map(factorise, numbers, chunksize=7)
    reported = dict(queue.get() for _ in numbers)
    pool.close()
    pool.join()

    primes = [number for number, found in zip(numbers, factors) if len(found) == 1]
    print(f"{len(primes)} primes: {' '.join(map(str, primes))}")
    print(f"reports: {len(reported)}")
    print(f"reports agree with results: {all(reported[n] == len(f) for n, f in zip(numbers, factors))}")


if __name__ == "__main__":
    main()
