"""Three producers, two consumers, one queue; a None for each consumer says that nothing more will come."""

import argparse
import multiprocessing
from tqshim import TurboQueue as Queue

PRODUCERS = 3
CONSUMERS = 2
NUMBERS = 500  # from each producer


def produce(queue, producer):
    for number in range(NUMBERS):
        queue.put({"producer": producer, "number": number})


def consume(queue, results):
    counts = [0] * PRODUCERS
    total = 0
    in_order = True
    last = [-1] * PRODUCERS
    while True:
        item = queue.get()
        if item is None:
            break
        producer, number = item["producer"], item["number"]
        in_order = in_order and number > last[producer]
        last[producer] = number
        counts[producer] += 1
        total += number**2
    results.put((counts, total, in_order))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=multiprocessing.get_all_start_methods())
    args = parser.parse_args()
    if args.method:
        multiprocessing.set_start_method(args.method)

    queue = Queue()
    results = Queue()
    producers = [multiprocessing.Process(target=produce, args=(queue, number)) for number in range(PRODUCERS)]
    consumers = [multiprocessing.Process(target=consume, args=(queue, results)) for _ in range(CONSUMERS)]
    for process in producers + consumers:
        process.start()
    for process in producers:
        process.join()
    for _ in consumers:
        queue.put(None)
    answers = [results.get() for _ in consumers]
    for process in consumers:
        process.join()

    for producer in range(PRODUCERS):
        print(f"producer {producer}: {sum(counts[producer] for counts, _, _ in answers)} items consumed")
    print(f"sum of squares: {sum(total for _, total, _ in answers)}")
    print(f"each producer's items in order: {all(in_order for _, _, in_order in answers)}")
    print(f"left over: {0 if queue.empty() else 'something'}")


if __name__ == "__main__":
    main()
