"""honcho: programs side by side; their lines and their ends come through one queue."""

import io
import multiprocessing
import re
import sys

from honcho.manager import Manager
from honcho.printer import Printer

if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    told = io.StringIO()
    manager = Manager(Printer(told, width=8))
    code = "print(*({0} * number for number in range(50)), sep=chr(10), flush=True); import time; time.sleep({1})"
    for number in range(1, 4):
        manager.add_process(f"p{number}", f'{sys.executable} -c "{code.format(number, 0.2 if number == 1 else 9)}"')
    manager.loop()
    lines = re.findall(r"(p\d) +\| (\d+)$", told.getvalue(), re.MULTILINE)
    for number in range(1, 4):
        print([int(line) for name, line in lines if name == f"p{number}"] == [number * one for one in range(50)])
    print(manager.returncode, sorted(set(re.findall(r"\| (p\d stopped|p\d started)", told.getvalue()))))
