"""black: many files, formatted by an executor's processes."""

import multiprocessing
import tempfile
from pathlib import Path

from black import main

if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    with tempfile.TemporaryDirectory() as folder:
        for number in range(8):
            Path(folder, f"{number}.py").write_text(f"x = {{ 'a':{number} }}\n")
        main(["-q", "--workers", "2", folder], standalone_mode=False)
        print([path.read_text() for path in sorted(Path(folder).glob("*.py"))])
