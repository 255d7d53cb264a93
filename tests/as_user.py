"""Run the tests of files and of rights as a user who is not root: root may read and write every file.

    python tests/as_user.py [WORD ...]

The words go to pytest.  It runs in a copy of the repository that this user owns.  The copy lies in a folder that is
deleted when the run ends; this folder is the user's home, and has the user's temporary folder, too.  If the interpreter
lies in a folder that only root may pass, an empty folder with the interpreter alone stands in its place for this run.
The exit status is pytest's.  A caller who is not root runs all tests as a user anyway: then this program says which
tests nobody has run, and runs nothing.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Final, Optional

from own_folder import make
from places import MOUNTS

ROOT: Final = Path(__file__).resolve().parent.parent
USER: Final = 54321
"""Nobody else's number, and of no user for whom a disk keeps room."""
TESTS: Final = (
    "tests/contract/test_contract_places.py",
    *(f"tests/test_{name}.py" for name in ("security", "folder", "monitor", "lifetime", "places")),
)
COPIED: Final = ("tqshim", "tests", "compat", "docs", "pyproject.toml", "README.md", "CONTRIBUTING.md", "SECURITY.md")


def closed(path: Path) -> Optional[Path]:
    """The folder on the way there that only its owner can pass, if there is one."""
    return next((one for one in reversed(path.parents) if not one.stat().st_mode & stat.S_IXOTH), None)


def opened(home: Path) -> str:
    """Shell commands that put the interpreter, and nothing else, into folders that are closed."""
    paths = [Path(one).resolve() for one in dict.fromkeys((sys.base_prefix, sys.prefix))]
    hidden = {path: top for path in paths if (top := closed(path))}
    kept = {shlex.quote(str(path)): shlex.quote(str(home / str(n))) for n, path in enumerate(hidden)}
    return "\n".join(
        [
            "umask 022",
            *(f"mkdir {behind}; mount --bind {path} {behind}" for path, behind in kept.items()),
            *(f"mount -t tmpfs -o mode=0755 none {shlex.quote(str(top))}" for top in sorted(set(hidden.values()))),
            *(f"mkdir -p {path}; mount --bind {behind} {path}" for path, behind in kept.items()),
            'exec "$@"',
        ]
    )


def copied(home: Path) -> Path:
    """The repository, all of which belongs to the user."""
    place = home / "user"
    for name in COPIED:
        source, target = ROOT / name, place / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(exist_ok=True)
            shutil.copy(source, target)
    (place / "tmp").mkdir()
    for folder, _, files in os.walk(place):
        for name in (".", *files):
            os.chown(os.path.join(folder, name), USER, USER)
    return place


def main(arguments: list[str]) -> int:
    if os.geteuid() != 0:
        print("as_user: this run is not root's; what only root can do (other users' files, mounts) WAS NOT TESTED.")
        return 0
    home = Path(make("tests-of-tqshim-as-user-"))
    try:
        home.chmod(0o755)
        place = copied(home)
        surroundings = {name: value for name, value in os.environ.items() if name not in ("TQSHIM_DIR", "PYTHONPATH")}
        surroundings.update(HOME=str(place), TMPDIR=str(place / "tmp"), USER="tester", LOGNAME="tester")
        user = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
        options = ["-n", "2", "-p", "no:cacheprovider", *(arguments or ["-q", *TESTS])]
        command = [*MOUNTS, "sh", "-ec", opened(home), "sh", *user, sys.executable, "-m", "pytest", *options]
        print(f"as_user: as user {USER}, who is not root: pytest {' '.join(options)}", flush=True)
        return subprocess.run(command, cwd=place, env=surroundings).returncode
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
