"""dill's recipe for multiprocessing: its pickler in the place of ``ForkingPickler``, so that closures can be put."""

import multiprocessing
import multiprocessing.queues
import multiprocessing.reduction

import dill

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    tasks, results = context.Queue(), context.SimpleQueue()
    dill.Pickler.dumps, dill.Pickler.loads = dill.dumps, dill.loads
    multiprocessing.reduction.ForkingPickler = dill.Pickler
    multiprocessing.reduction.dump = dill.dump
    multiprocessing.queues._ForkingPickler = dill.Pickler

    def work():
        for task in iter(tasks.get, None):
            results.put((task(), lambda: "from the child"))

    process = context.Process(target=work)
    process.start()
    for number in range(20):
        tasks.put(lambda number=number: number * number)
    tasks.put(None)
    got = [results.get() for _ in range(20)]
    process.join()
    print([number for number, _ in got], {tell() for _, tell in got}, process.exitcode)
