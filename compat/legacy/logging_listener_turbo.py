"""Logging from many processes into one place, after the logging cookbook: QueueHandler there, QueueListener here."""

import argparse
import logging
import logging.handlers
import multiprocessing
from tqshim import TurboQueue as Queue

WORKERS = 4
JOBS = 10  # for each worker


class Lines(logging.Handler):
    """Keep formatted lines, to be sorted at the end: those of different processes arrive in any order."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(self.format(record))


def work(queue, number):
    root = logging.getLogger()
    root.handlers = [logging.handlers.QueueHandler(queue)]
    root.setLevel(logging.INFO)
    log = logging.getLogger(f"worker.{number}")
    for job in range(JOBS):
        log.debug("not shown")
        log.info("job %02d begins", job)
        try:
            1 / (job % 3)
        except ZeroDivisionError:
            log.exception("job %02d fails", job)
        else:
            log.warning("job %02d ends with %d", job, job % 3)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=multiprocessing.get_all_start_methods())
    args = parser.parse_args()
    if args.method:
        multiprocessing.set_start_method(args.method)

    queue = Queue()
    handler = Lines()
    handler.setFormatter(logging.Formatter("%(name)s %(levelname)-7s %(message)s"))
    workers = [multiprocessing.Process(target=work, args=(queue, number)) for number in range(WORKERS)]
    for worker in workers:
        worker.start()
    # The listener is a thread: start it when there is no more to fork.
    listener = logging.handlers.QueueListener(queue, handler)
    listener.start()
    for worker in workers:
        worker.join()
    listener.stop()

    # A traceback names the file; its first and last line say what happened.
    lines = [line.splitlines() for line in handler.lines]
    for line in sorted(lines, key=lambda line: line[0]):
        print(line[0], *line[-1:] if len(line) > 1 else ())
    print(f"{len(lines)} records")


if __name__ == "__main__":
    main()
