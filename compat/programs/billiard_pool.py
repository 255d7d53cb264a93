"""billiard, celery's own multiprocessing: beside ours, with a queue of each kind."""

import multiprocessing

import billiard


def work(number):
    return number * number


def pass_on(tasks, results):
    for task in iter(tasks.get, None):
        results.put(task + 1)


if __name__ == "__main__":
    billiard.set_start_method("fork")
    pool = billiard.Pool(2)
    print(pool.map(work, range(10)))
    pool.close()
    pool.join()
    tasks, results = billiard.Queue(), multiprocessing.get_context("fork").Queue()
    process = billiard.Process(target=pass_on, args=(tasks, results))
    process.start()
    for task in (*range(10), None):
        tasks.put(task)
    print([results.get() for _ in range(10)])
    process.join()
    print(process.exitcode)
