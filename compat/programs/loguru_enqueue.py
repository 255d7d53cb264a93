"""loguru with ``enqueue=True``: every process's messages go through one SimpleQueue to the file of the first."""

import multiprocessing
import sys
import tempfile
from pathlib import Path

from loguru import logger

WORKERS, RECORDS = 3, 150


def work(passed, number):
    for count in range(RECORDS):
        passed.bind(number=number).info("record {}", count)
    passed.complete()


if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log")
        logger.remove()
        logger.add(path, enqueue=True, context=context, format="{extra[number]} {level} {message}")
        workers = [context.Process(target=work, args=(logger, number)) for number in range(WORKERS)]
        for worker in workers:
            worker.start()
        logger.bind(number="main").warning("started")
        for worker in workers:
            worker.join()
        logger.complete()
        logger.remove()
        lines = path.read_text().splitlines()
    for number in range(WORKERS):
        mine = [line for line in lines if line.startswith(f"{number} ")]
        print(number, mine == [f"{number} INFO record {count}" for count in range(RECORDS)])
    print(len(lines), [line for line in lines if line.startswith("main")])
