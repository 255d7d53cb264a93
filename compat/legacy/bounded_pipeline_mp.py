"""Three stages with short queues between them: a fast reader is held back by a slower middle and a slow end.

read --(4)--> parse, three processes --(2)--> collect --> parent
"""

import argparse
import collections
import multiprocessing
import time
from multiprocessing import Queue

LINES = 400
PARSERS = 3
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "runs"]


def read(lines):
    for number in range(LINES):
        lines.put((number, " ".join(WORDS[(number * step) % len(WORDS)] for step in range(1, 6))))
    for _ in range(PARSERS):
        lines.put(None)


def parse(lines, parsed):
    for number, line in iter(lines.get, None):
        parsed.put((number, collections.Counter(line.split())))
    parsed.put(None)


def collect(parsed, answers):
    counts = collections.Counter()
    seen = set()
    running = PARSERS
    while running:
        item = parsed.get()
        if item is None:
            running -= 1
            continue
        number, words = item
        seen.add(number)
        counts.update(words)
        if number % 20 == 0:
            time.sleep(0.005)  # the end of the pipeline is its slowest part
    answers.put((len(seen), counts))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--method", choices=multiprocessing.get_all_start_methods())
    args = parser.parse_args()
    if args.method:
        multiprocessing.set_start_method(args.method)

    lines = Queue(maxsize=4)
    parsed = Queue(2)
    answers = Queue()
    stages = [multiprocessing.Process(target=read, args=(lines,))]
    stages += [multiprocessing.Process(target=parse, args=(lines, parsed)) for _ in range(PARSERS)]
    stages += [multiprocessing.Process(target=collect, args=(parsed, answers))]
    for stage in stages:
        stage.start()
    seen, counts = answers.get()
    for stage in stages:
        stage.join()

    print(f"{seen} lines, {sum(counts.values())} words")
    for word, count in sorted(counts.items(), key=lambda row: (-row[1], row[0])):
        print(f"{word:8} {count:5}")
    print(f"queues empty: {lines.empty() and parsed.empty()}")


if __name__ == "__main__":
    main()
