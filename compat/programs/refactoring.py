"""lib2to3's refactoring by several processes: a stdlib program that hands files out through a joinable queue."""

import hashlib
import logging
import multiprocessing
import sys
import tempfile
from lib2to3.main import main
from pathlib import Path

FILES = 24
SOURCE = """import urllib2
class Old:
    __metaclass__ = type
    def has(self, table):
        print "number {number}", table.has_key("a"), `self`
        for key in table.iterkeys():
            exec "x = 1"
        raise ValueError, "no"
"""

if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    logging.basicConfig(level=logging.ERROR)  # Which file comes when is left to chance.
    with tempfile.TemporaryDirectory() as folder:
        for number in range(FILES):
            Path(folder, f"module_{number}.py").write_text(SOURCE.format(number=number))
        print(main("lib2to3.fixes", ["--write", "--nobackups", "--no-diffs", "--processes", "3", folder]))
        for path in sorted(Path(folder).iterdir()):
            print(path.name, hashlib.sha256(path.read_bytes()).hexdigest())
        print(path.read_text())
    sys.stdout.flush()
