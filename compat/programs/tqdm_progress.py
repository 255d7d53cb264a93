"""tqdm: maps over an executor's processes, with a bar that tells of their progress."""

import io
import multiprocessing

from tqdm.contrib.concurrent import process_map


def work(number):
    return number * number


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    print(process_map(work, range(20), max_workers=2, chunksize=2, file=io.StringIO()))
