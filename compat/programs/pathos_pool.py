"""pathos and multiprocess: a fork of multiprocessing with dill, beside ours; its queues stay its own."""

import multiprocessing

import multiprocess
from pathos.multiprocessing import ProcessPool

if __name__ == "__main__":
    add = 5
    pool = ProcessPool(2)
    print(pool.map(lambda number: number + add, range(10)))
    pool.close()
    pool.join()
    context = multiprocess.get_context("fork")
    theirs, ours = context.Queue(), multiprocessing.get_context("fork").Queue()
    process = context.Process(target=lambda: (theirs.put(lambda: "theirs"), ours.put("ours")))
    process.start()
    print(theirs.get()(), ours.get(), type(theirs).__module__)
    process.join()
