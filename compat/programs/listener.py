"""logging's recipe for one file from several processes: a QueueHandler in each, one QueueListener."""

import logging
import logging.handlers
import multiprocessing
import sys
import tempfile
from pathlib import Path

WORKERS, RECORDS = 3, 200


def work(queue, number):
    root = logging.getLogger()
    root.handlers[:] = [logging.handlers.QueueHandler(queue)]
    root.setLevel(logging.DEBUG)
    for count in range(RECORDS):
        logging.getLogger(f"worker.{number}").info("record %d", count)
    try:
        raise ValueError(number)
    except ValueError:
        root.exception("worker %d ends", number)


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    queue = multiprocessing.Queue(-1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log")
        handler = logging.FileHandler(path)
        handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
        listener = logging.handlers.QueueListener(queue, handler)
        listener.start()
        workers = [multiprocessing.Process(target=work, args=(queue, number)) for number in range(WORKERS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        listener.stop()
        handler.close()
        lines = path.read_text().splitlines()
    for number in range(WORKERS):
        mine = [line for line in lines if line.startswith(f"worker.{number} ")]
        print(number, mine == [f"worker.{number} INFO record {count}" for count in range(RECORDS)])
    print(len(lines), sum("Traceback" in line for line in lines), sorted(line for line in lines if "ends" in line))
