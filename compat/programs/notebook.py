"""nbclient: a notebook whose cells make a queue and a process; its kernel installs if this process has."""

import multiprocessing
import os

import nbformat
from nbclient import NotebookClient

CELLS = (
    "import multiprocessing\n"
    "context = multiprocessing.get_context('fork')\n"
    "tasks, results = context.JoinableQueue(), context.Queue()",
    "def work():\n"
    "    for task in iter(tasks.get, None):\n"
    "        results.put(task * task)\n"
    "        tasks.task_done()\n"
    "process = context.Process(target=work)\n"
    "process.start()",
    "for number in range(10):\n    tasks.put(number)\ntasks.join()\ntasks.put(None)\nprocess.join()",
    "print([results.get() for _ in range(10)], process.exitcode)",
)

if __name__ == "__main__":
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the kernel's warnings
    notebook = nbformat.v4.new_notebook()
    install = "import tqshim\ntqshim.install()" if type(multiprocessing.Queue()).__name__ == "TurboQueue" else ""
    notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in (install, *CELLS)]
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    print(notebook.cells[-1].outputs[0].text)
