"""cloudpickle's functions as those of ``ForkingPickler``, set for a block and reset after it."""

import multiprocessing
from multiprocessing.reduction import ForkingPickler

import cloudpickle

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    queue, results = context.JoinableQueue(4), context.Queue()

    def work():
        for task in iter(queue.get, None):
            results.put(task(2))
            queue.task_done()
        queue.task_done()

    former = vars(ForkingPickler)["dumps"], vars(ForkingPickler)["loads"]
    ForkingPickler.dumps, ForkingPickler.loads = cloudpickle.dumps, cloudpickle.loads
    process = context.Process(target=work)
    process.start()
    for number in range(20):
        queue.put(lambda factor, number=number: number * factor)
    queue.put(None)
    queue.join()
    print([results.get() for _ in range(20)])
    process.join()
    ForkingPickler.dumps, ForkingPickler.loads = former
    results.put("plain again")
    print(results.get(), process.exitcode)
