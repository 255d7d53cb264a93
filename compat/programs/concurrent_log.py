"""concurrent-log-handler: a listener takes records of all processes from a queue into a file that turns over."""

import logging
import logging.handlers
import multiprocessing
import sys
import tempfile
from pathlib import Path

from concurrent_log_handler import ConcurrentRotatingFileHandler

WORKERS, RECORDS = 3, 150


def work(queue, number):
    root = logging.getLogger()
    root.handlers[:] = [logging.handlers.QueueHandler(queue)]
    root.setLevel(logging.INFO)
    for count in range(RECORDS):
        root.info("%d/%d", number, count)


if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        queue = context.Queue()
        handler = ConcurrentRotatingFileHandler(str(Path(folder, "log")), maxBytes=1500, backupCount=100)
        listener = logging.handlers.QueueListener(queue, handler)
        listener.start()
        workers = [context.Process(target=work, args=(queue, number)) for number in range(WORKERS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        listener.stop()
        handler.close()
        files = [path for path in Path(folder).iterdir() if path.name.startswith("log")]
        lines = [line for path in files for line in path.read_text().splitlines()]
    print(len(lines), len(set(lines)), len(files) > 1)
