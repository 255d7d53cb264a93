"""celery: a worker with a prefork pool, over a broker in memory, whose tasks put into a queue of the program's."""

import logging
import multiprocessing
import threading

from celery import Celery
from celery.contrib.testing.worker import start_worker

said = multiprocessing.get_context("fork").Queue()
app = Celery("program", broker="memory://", backend="cache+memory://")
app.conf.worker_hijack_root_logger = False


@app.task(ignore_result=True)
def work(number):
    said.put(number * number)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    with start_worker(app, pool="prefork", concurrency=2, perform_ping_check=False, loglevel="CRITICAL"):
        for number in range(20):
            work.delay(number)
        print(sorted(said.get(timeout=60) for _ in range(20)))
    print(threading.active_count() > 0)
