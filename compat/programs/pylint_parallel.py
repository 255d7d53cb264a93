"""pylint -j 2: files are checked in an executor's processes."""

import io
import sys
import tempfile
from pathlib import Path

from pylint.lint import Run
from pylint.reporters.text import TextReporter

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for number in range(8):
            Path(folder, f"module{number}.py").write_text(f"import os\nvalue{number} = undefined_{number}\n")
        told = io.StringIO()
        files = [str(path) for path in sorted(Path(folder).iterdir())]
        Run(["-j", "2", "--disable=all", "--enable=W0611,E0602", *files], reporter=TextReporter(told), exit=False)
    print(sorted(line.rpartition("/")[2] for line in told.getvalue().splitlines() if "module" in line and ":" in line))
    sys.stdout.flush()
