"""multiprocessing-logging: a handler that sends the records of forked processes through a queue to the first one."""

import io
import logging
import multiprocessing

import multiprocessing_logging

WORKERS, RECORDS = 4, 200


def work(number):
    for count in range(RECORDS):
        logging.getLogger("program").info("%d/%d", number, count)


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    stream = io.StringIO()
    logging.basicConfig(stream=stream, level=logging.INFO, format="%(processName)s %(message)s")
    multiprocessing_logging.install_mp_handler()
    workers = [multiprocessing.Process(target=work, args=(number,), name=f"w{number}") for number in range(WORKERS)]
    for worker in workers:
        worker.start()
    pool = multiprocessing.Pool(2)
    pool.map(work, [7, 8])
    pool.close()  # Leaving a with block would kill its workers, perhaps with the stdlib queue's lock in their hands.
    pool.join()
    for worker in workers:
        worker.join()
    logging.getLogger("program").info("last")
    for handler in logging.getLogger().handlers:
        handler.close()
    lines = stream.getvalue().splitlines()
    for number in range(WORKERS):
        mine = [line for line in lines if line.startswith(f"w{number} ")]
        print(number, mine == [f"w{number} {number}/{count}" for count in range(RECORDS)])
    print(len(lines), sum("7/" in line or "8/" in line for line in lines), [line for line in lines if "last" in line])
