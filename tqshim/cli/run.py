"""``python -m tqshim run``: a whole program, unedited, with our queues.

Lives here: making this process look as if the interpreter had been told to run the program.  Not here: what is swapped
(``patching``).

Invariant: ``sys.argv``, ``sys.path``, ``__main__``, the exit code and the traceback are the same as if the program ran
without us; so a child that imports its main module again imports the program's.
"""

from __future__ import annotations

import argparse
import builtins
import importlib.machinery
import io
import linecache
import os
import pkgutil
import runpy
import sys
import textwrap
from types import ModuleType, TracebackType
from typing import Any, Final, NoReturn, Optional, Union

from tqshim.queues.patching import install

__all__ = ["EXAMPLE", "SUMMARY", "USAGE", "add_arguments", "main", "run"]

SUMMARY: Final = "Run a program, unedited, with our queues in the place of multiprocessing's."
EXAMPLE: Final = """\
  python -m tqshim run script.py arguments      # as python script.py arguments
  python -m tqshim run -m module arguments      # as python -m module arguments"""

USAGE: Final = """\
usage: python -m tqshim run [-m MODULE | -c CODE | SCRIPT | -] [ARGUMENT ...]

Run a program as python itself does, with tqshim's queues in the place of multiprocessing's.

for example:
  python -m tqshim run script.py arguments
  python -m tqshim run -m module arguments
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options: all arguments behind them are the program's."""
    parser.add_argument("-m", dest="is_module", action="store_true", help="the program is a module, not a script")
    parser.add_argument("-c", dest="is_code", action="store_true", help="the program is the code that is given")
    parser.add_argument("program", nargs=argparse.REMAINDER, help="the program, and its arguments")


def run(options: argparse.Namespace) -> int:
    """Run the program of these options."""
    return main([*(["-m"] if options.is_module else []), *(["-c"] if options.is_code else []), *options.program])


def main(arguments: list[str]) -> int:
    """Run a program and end as it ends.  Returns an exit code where there is no program to run."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(USAGE, end="")
        return 0
    option = arguments[0] if arguments[:1] in (["-m"], ["-c"]) else ""
    program = arguments[1:] if option else arguments
    if not program or (program[0].startswith("-") and option != "-c" and program[0] != "-"):
        print(USAGE, end="", file=sys.stderr)
        return 2
    install()
    try:
        if option == "-m":
            _run_module(program)
        elif option == "-c":
            _run_source(_given(program[0]), "<string>", ["-c", *program[1:]])
        elif program[0] == "-":
            _run_source(sys.stdin.buffer.read(), "<stdin>", program)
        else:
            _run_file(program)
    except SystemExit:
        raise
    except BaseException:
        _hide_ourselves()
        raise
    return 0


def _fresh_main() -> ModuleType:
    """Make a ``__main__`` without anything of ours in it; ``multiprocessing`` knows it by another name, too."""
    module = ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    if sys.version_info < (3, 14):
        module.__annotations__ = {}
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    return module


def _is_of(module: ModuleType, file: str) -> None:
    module.__file__ = file
    if sys.version_info < (3, 15):
        module.__dict__["__cached__"] = None


def _run_module(program: list[str]) -> None:
    _fresh_main()
    sys.argv[:] = ["-m", *program[1:]]
    runpy._run_module_as_main(program[0])  # type: ignore[attr-defined]


def _given(source: str) -> str:
    """Return the code given with ``-c`` as this version of Python takes it."""
    if sys.version_info >= (3, 14):
        source = textwrap.dedent(source)
    if sys.version_info >= (3, 13):  # tracebacks show its lines
        linecache.cache["<string>"] = len(source), None, source.splitlines(keepends=True), "<string>"
    return source


def _run_source(source: Union[bytes, str], name: str, arguments: list[str]) -> None:
    """Run a program that has no file.  Each import first searches the folder that is the current one at that time."""
    sys.argv[:] = arguments
    module = _fresh_main()
    module.__loader__ = importlib.machinery.BuiltinImporter
    if name == "<stdin>":
        _is_of(module, name)
    _search_first("")
    exec(compile(source, name, "exec", dont_inherit=True), module.__dict__)


def _run_file(program: list[str]) -> None:
    path = program[0]
    sys.argv[:] = program
    module = _fresh_main()
    importer = pkgutil.get_importer(path)
    if not isinstance(importer, (type(None), importlib.machinery.FileFinder)) or os.path.isdir(path):
        # A folder or an archive with a __main__.py.
        _search_first(os.path.abspath(path))
        runpy._run_module_as_main("__main__", False)  # type: ignore[attr-defined]
        return
    absolute = os.path.join(os.getcwd(), path)
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        _cant_open(absolute, error)
    code = pkgutil.read_code(io.BytesIO(source))  # ``None``: it is no bytecode of this version
    _search_first(os.path.dirname(os.path.realpath(path)))
    _is_of(module, absolute)
    if code or path.endswith(".pyc"):
        module.__loader__ = importlib.machinery.SourcelessFileLoader("__main__", absolute)
    else:
        module.__loader__ = importlib.machinery.SourceFileLoader("__main__", absolute)
        code = compile(source, absolute, "exec", dont_inherit=True)
    if code is None:
        raise RuntimeError("Bad magic number in .pyc file")
    exec(code, module.__dict__)


def _search_first(folder: str) -> None:
    """Put the program's folder where the interpreter has put the current folder."""
    if not getattr(sys.flags, "safe_path", False) and not sys.flags.isolated:
        sys.path[0] = folder


def _cant_open(path: str, error: OSError) -> NoReturn:
    print(f"{sys.executable}: can't open file {path!r}: [Errno {error.errno}] {error.strerror}", file=sys.stderr)
    raise SystemExit(2) from None


def _hide_ourselves() -> None:
    """Let the traceback that the interpreter is about to print begin where the program does."""
    program_hook = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: Optional[TracebackType]) -> Any:
        frame = trace
        while frame is not None:
            if frame.tb_frame.f_code.co_filename == __file__:
                trace = frame.tb_next
            frame = frame.tb_next
        program_hook(kind, error.with_traceback(trace), trace)

    sys.excepthook = hook
