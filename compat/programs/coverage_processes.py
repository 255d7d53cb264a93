"""coverage with ``concurrency = multiprocessing``: which lines ran in processes that take from a queue."""

import multiprocessing
import sys
import tempfile
from pathlib import Path

import coverage

WORK = """
def work(tasks, results):
    for task in iter(tasks.get, None):
        if task % 2:
            results.put("odd")
        elif task > 100:
            results.put("never")
        else:
            results.put("even")
"""

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "counted.py").write_text(WORK)
        sys.path.insert(0, folder)
        settings = f"[run]\nconcurrency = multiprocessing\nparallel = true\ndata_file = {folder}/data\n"
        Path(folder, "rc").write_text(settings)
        measured = coverage.Coverage(config_file=str(Path(folder, "rc")))
        measured.start()
        import counted

        tasks, results = context.Queue(), context.Queue()
        process = context.Process(target=counted.work, args=(tasks, results))
        process.start()
        for number in (*range(10), None):
            tasks.put(number)
        print([results.get() for _ in range(10)])
        process.join()
        measured.stop()
        measured.save()
        measured.combine([folder])
        print(sorted(measured.get_data().lines(counted.__file__)))
