"""logging.config with a queue of multiprocessing's in its configuration (Python 3.13 and later: the first versions of
3.12 refuse any such queue)."""

import logging
import logging.config
import multiprocessing
import sys
import tempfile
from pathlib import Path

WORKERS, RECORDS = 3, 100


def work(queue, number):
    logging.config.dictConfig(
        {
            "version": 1,
            "handlers": {"queue": {"class": "logging.handlers.QueueHandler", "queue": queue}},
            "root": {"level": "INFO", "handlers": ["queue"]},
        }
    )
    for count in range(RECORDS):
        logging.info("%d/%d", number, count)


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log")
        logging.config.dictConfig(
            {
                "version": 1,
                "handlers": {
                    "file": {"class": "logging.FileHandler", "filename": str(path)},
                    "queue": {
                        "class": "logging.handlers.QueueHandler",
                        "queue": {"()": "multiprocessing.Queue", "maxsize": 1000},
                        "handlers": ["file"],
                    },
                },
                "root": {"level": "INFO", "handlers": ["queue"]},
            }
        )
        handler = logging.getHandlerByName("queue")
        handler.listener.start()
        workers = [multiprocessing.Process(target=work, args=(handler.queue, number)) for number in range(WORKERS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0
        handler.listener.stop()
        lines = path.read_text().splitlines()
    assert sorted(lines) == sorted(f"{number}/{count}" for number in range(WORKERS) for count in range(RECORDS))
    print(len(lines), len(set(lines)))
