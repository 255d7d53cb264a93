"""PyInstaller: a program of one folder, frozen, whose spawned children are the program itself again."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FROZEN = """
import multiprocessing, sys
{install}
class Mine:
    def __init__(self, number):
        self.number = number
def work(tasks, results):
    for task in iter(tasks.get, None):
        results.put(Mine(task * task))
if __name__ == "__main__":
    multiprocessing.freeze_support()
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        tasks, results = context.Queue(), context.Queue()
        process = context.Process(target=work, args=(tasks, results))
        process.start()
        for task in (1, 2, 3, None):
            tasks.put(task)
        print(method, [results.get().number for _ in range(3)])
        process.join()
"""

if __name__ == "__main__":
    ours = type(multiprocessing.Queue()).__name__ == "TurboQueue"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "program.py")
        path.write_text(FROZEN.format(install="import tqshim\ntqshim.install()" if ours else ""))
        build = [sys.executable, "-m", "PyInstaller", "--log-level=ERROR", "--onedir", "--distpath", folder]
        build += ["--workpath", f"{folder}/work", "--specpath", folder, str(path)]
        subprocess.run(build, check=True, stderr=subprocess.DEVNULL)
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run([f"{folder}/program/program"], env=environment, stdout=subprocess.PIPE, text=True)
    print(done.returncode, done.stdout)
