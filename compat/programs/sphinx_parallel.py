"""sphinx -j 2: documents are read and written by several processes."""

import contextlib
import io
import os
import tempfile
from pathlib import Path

from sphinx.cmd.build import main

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source")
        source.mkdir()
        (source / "conf.py").write_text("project = 'p'\nhtml_theme = 'basic'\n")
        names = [f"page{number}" for number in range(12)]
        for name in names:
            (source / f"{name}.rst").write_text(f"{name}\n{'=' * len(name)}\n\n:doc:`index`\n")
        (source / "index.rst").write_text("i\n=\n\n.. toctree::\n\n   " + "\n   ".join(names) + "\n")
        with contextlib.redirect_stdout(io.StringIO()) as told:
            code = main(["-q", "-j", "2", "-b", "html", str(source), os.path.join(folder, "built")])
        print(code, told.getvalue(), sorted(path.name for path in Path(folder, "built").glob("page*.html")))
