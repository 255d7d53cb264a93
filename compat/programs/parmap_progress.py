"""parmap: maps over a pool, with and without a bar."""

import multiprocessing

import parmap


def work(number, add):
    return number * number + add


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    print(parmap.map(work, range(10), 5, pm_processes=2), parmap.starmap(work, [(1, 2), (3, 4)], pm_processes=2))
