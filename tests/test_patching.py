"""Contexts with our queues, our queues in the place of the standard library's, and whole programs run that way."""

from __future__ import annotations

import gc
import inspect
import multiprocessing
import os
import py_compile
import shutil
import signal
import subprocess
import sys
import textwrap
import warnings
import zipapp
from collections.abc import Iterator
from multiprocessing import context as contexts
from multiprocessing import queues, spawn
from pathlib import Path
from typing import Any

import pytest
from programs import patched
from sampling import sampled

import tqshim
from tqshim import JoinableTurboQueue, SimpleTurboQueue, TurboQueue

OURS = ["TurboQueue", "JoinableTurboQueue", "SimpleTurboQueue"]
THEIRS = ["Queue", "JoinableQueue", "SimpleQueue"]
METHODS = multiprocessing.get_all_start_methods()
SQUARES = [[0, 1, 4, 9], [0, 1, 4, 9], 49, [0, 1, 4, 9], True]


def expected(names: list[str]) -> list[str]:
    return [*names, names[0], *names * len(METHODS)]


# -- contexts


def test_a_context_makes_our_queues_and_is_else_the_stdlibs(method: str) -> None:
    ours, theirs = tqshim.get_context(method), multiprocessing.get_context(method)
    assert isinstance(ours, type(theirs))
    assert ours.Process is theirs.Process
    assert ours.get_start_method() == method
    assert ours.get_context() is ours is tqshim.get_context(method)
    assert type(ours.Queue()) is TurboQueue
    assert type(ours.JoinableQueue(3)) is JoinableTurboQueue
    assert ours.Queue(maxsize=5)._maxsize == 5
    assert type(ours.SimpleQueue()) is SimpleTurboQueue
    for name in THEIRS:
        told, found = (inspect.signature(getattr(one, name)).parameters.values() for one in (theirs, ours))
        assert [(p.name, p.kind, p.default) for p in found] == [(p.name, p.kind, p.default) for p in told]


def test_the_default_context_is_that_of_the_default_start_method() -> None:
    assert tqshim.get_context().get_start_method() == multiprocessing.get_context().get_start_method()
    assert tqshim.get_context("spawn").get_context("fork") is tqshim.get_context("fork")
    with pytest.raises(ValueError, match="cannot find context"):
        tqshim.get_context("teleport")


@pytest.mark.in_turn
def test_pools_and_executors_work_on_a_context(method: str) -> None:
    assert patched.pools_work(tqshim.get_context(method)) == SQUARES


# -- installing


@pytest.fixture
def installed() -> Iterator[None]:
    with tqshim.install():
        yield


def state() -> list[Any]:
    """All that installing may change."""
    base = contexts.BaseContext
    functions = [getattr(base, name) for name in THEIRS]
    return [
        functions,
        [function.__code__ for function in functions],
        spawn.get_preparation_data,
        [getattr(multiprocessing, name) for name in THEIRS],
        [getattr(queues, name) for name in THEIRS],
        dict(vars(base)),
    ]


def test_installing_reaches_every_name_and_leaves_nothing_behind() -> None:
    """Also a name that was bound before: that of ``programs.patched``."""
    before = state()
    assert patched.kinds() == expected(THEIRS)
    with tqshim.install():
        assert patched.kinds() == expected(OURS)
        with tqshim.install():
            assert patched.kinds() == expected(OURS)
        assert patched.kinds() == expected(OURS), "the inner block was not the one that installed"
        assert isinstance(multiprocessing.Queue(), queues.Queue)
        assert inspect.signature(multiprocessing.Queue) == inspect.signature(before[3][0])
    assert state() == before
    tqshim.install()
    tqshim.uninstall()
    tqshim.uninstall()
    assert state() == before
    assert patched.kinds() == expected(THEIRS)


@pytest.mark.in_turn
def test_children_of_every_method_install_too(installed: None, method: str) -> None:
    """And theirs."""
    says = SimpleTurboQueue()
    child: Any = multiprocessing.get_context(method)
    process = child.Process(target=patched.tell_kinds, args=(says,))
    process.start()
    assert says.get() == expected(OURS)
    process.join(60)
    for second in METHODS:
        if (method, second) == ("fork", "forkserver"):
            continue  # a forked child waits for its parent's fork server, if there is one, and fails
        process = child.Process(target=patched.tell_kinds_of_a_child, args=(second, says))
        process.start()
        assert says.get() == expected(OURS), second
        process.join(60)


def test_children_that_start_after_uninstalling_do_not(method: str) -> None:
    child: Any = multiprocessing.get_context(method)
    with tqshim.install():
        pass
    says = SimpleTurboQueue()
    process = child.Process(target=patched.tell_kinds, args=(says,))
    process.start()
    assert says.get() == expected(THEIRS)
    process.join(60)


@pytest.mark.in_turn
def test_pools_and_executors_keep_the_stdlibs_queues(installed: None, method: str) -> None:
    assert patched.pools_work(multiprocessing.get_context(method)) == SQUARES
    assert patched.pools_work(tqshim.get_context(method)) == SQUARES


def test_what_is_out_of_reach_is_warned_of() -> None:
    made = multiprocessing.Queue()

    class Derived(queues.Queue):  # type: ignore[type-arg]
        pass

    with pytest.warns(RuntimeWarning) as warned, tqshim.install():
        pass
    told = "\n".join(str(one.message) for one in warned)
    assert "queues made before stay multiprocessing's (1)" in told
    assert "test_patching.test_what_is_out_of_reach_is_warned_of.<locals>.Derived derives from" in told
    assert all(one.filename == __file__ for one in warned)
    made.close()
    del made, Derived
    gc.collect()
    if not tqshim.engine.tuning.GIL:
        return  # the class lives on
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with tqshim.install():
            pass


def test_a_users_module_whose_name_begins_as_ours_is_not_taken_for_ours() -> None:
    derived = type("Mine", (queues.Queue,), {"__module__": "tqshim_of_mine"})
    with pytest.warns(RuntimeWarning, match=r"tqshim_of_mine\.Mine derives"):
        with tqshim.install():
            pass
    del derived
    gc.collect()


def test_the_classes_themselves_and_managers_queues_stay_the_stdlibs(installed: None) -> None:
    """Executors and others derive from the first; the second live in a server, behind proxies."""
    for name, cls in zip(THEIRS, (queues.Queue, queues.JoinableQueue, queues.SimpleQueue)):
        made: Any = cls(ctx=multiprocessing.get_context())
        assert type(made).__name__ == name
        made.close()
    with multiprocessing.get_context("fork").Manager() as manager:
        kept: Any = manager.Queue()
        kept.put("item")
        assert type(kept).__module__ == "multiprocessing.managers"
        assert kept.get() == "item"


def test_what_starts_processes_without_multiprocessing_is_out_of_reach(installed: None) -> None:
    code = "import multiprocessing; print(type(multiprocessing.Queue()).__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "Queue\n"


PRELOADED = """
import multiprocessing, os
made, born = multiprocessing.Queue(), os.getpid()
"""
PRELOADING = """
import preloaded

def child(says):
    mine = type(multiprocessing.Queue()).__name__
    for module in (preloaded, sys.modules["__main__"]):
        says.put((type(module.made).__name__, module.born == os.getpid(), mine))

if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", "preloaded"])
    says = context.SimpleQueue()
    process = context.Process(target=child, args=(says,))
    process.start()
    for _ in range(2):
        print(*says.get())
    process.join()
"""


@pytest.mark.skipif("forkserver" not in METHODS, reason="there are no fork servers")
def test_queues_of_modules_that_a_fork_server_has_preloaded_are_out_of_reach(tmp_path: Path) -> None:
    """Its children install before they import anything, and warn of what was made before that; ``__main__`` is
    preloaded from 3.13.8 and 3.14.1 on."""
    (tmp_path / "preloaded.py").write_text(PRELOADED, "utf-8")
    (tmp_path / "script.py").write_text("import sys" + PRELOADED + PRELOADING, "utf-8")
    paths = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-m", "tqshim", "run", "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    module, main = (line.split() for line in done.stdout.splitlines())
    assert module == ["Queue", "False", "TurboQueue"]
    assert main in (["Queue", "False", "TurboQueue"], ["TurboQueue", "True", "TurboQueue"])
    if sys.version_info >= (3, 14, 1):
        assert main[0] == "Queue"
    assert "queues made before stay multiprocessing's" in done.stderr


# -- running a program

PROGRAM = """
import multiprocessing, os, sys
from multiprocessing import JoinableQueue, Queue, SimpleQueue

class Mine:
    pass

def child(says):
    says.put([type(Queue()) is type(multiprocessing.Queue()), sys.argv, __name__, sys.path[0], Mine.__module__])

if __name__ == "__main__":
    spec = __spec__ and __spec__.name
    print(sys.argv, __file__, __name__, spec, sys.path, sorted(set(globals()) - {"spec"}), type(__loader__).__name__)
    print(sys.modules["__main__"].Mine is Mine, os.getcwd())
    sys.stdout.flush()
    for method in [] if "alone" in sys.argv else multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context(method)
        says = context.Queue()
        process = context.Process(target=child, args=(says,))
        process.start()
        print(method, says.get())
        sys.stdout.flush()
        process.join()
    print("ours:" + type(Queue()).__name__, file=sys.stderr) if "-q" in sys.argv else None
    match_ = {"raise": "raise ValueError('no')", "exit": "sys.exit(7)", "text": "sys.exit('text')",
              "interrupt": "raise KeyboardInterrupt", "hook": "sys.excepthook = lambda *a: print('hook', a[1]); 1/0",
              "full": "q = Queue(1); q.put(1); q.put_nowait(2)"}
    exec(match_.get(sys.argv[1], ""))
"""


def run(folder: Path, *arguments: str, turbo: bool) -> tuple[int, str, str]:
    command = [sys.executable, *(["-m", "tqshim", "run"] if turbo else []), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A folder with the program as a script, in a package, as a package's ``__main__`` and as an application folder."""
    places = ("script.py", "package/__main__.py", "package/module.py", "package/__init__.py", "application/__main__.py")
    for place in places:
        path = tmp_path / place
        path.parent.mkdir(exist_ok=True)
        path.write_text("" if place.endswith("__init__.py") else PROGRAM, "utf-8")
    (tmp_path / "link.py").symlink_to(tmp_path / "application" / "__main__.py")
    return tmp_path


@pytest.mark.in_turn
@pytest.mark.parametrize(
    "arguments",
    sampled(
        "programs",
        [
            ["script.py", "plain", "-m", "--help"],
            ["script.py", "raise"],
            ["./script.py", "exit"],
            ["script.py", "text"],
            ["script.py", "interrupt"],
            ["script.py", "hook"],
            ["link.py", "plain"],
            ["application", "plain", "alone"],
            ["-m", "package.module", "raise"],
            ["-m", "package", "exit", "-m", "alone"],
            ["no_such_file.py"],
            ["-m", "no_such_module"],
        ],
        5,
    ),
    ids=" ".join,
)
def test_a_program_sees_what_it_sees_without_us(program: Path, arguments: list[str]) -> None:
    """Arguments, names, paths, children's main modules; output, exit code and traceback."""
    assert run(program, *arguments, turbo=True) == run(program, *arguments, turbo=False)


def test_a_compiled_program_sees_what_it_sees_without_us(program: Path) -> None:
    """By its name or by its first bytes alone; and that of another version is refused in the same words."""
    compiled = program / "script.pyc"
    py_compile.compile(str(program / "script.py"), str(compiled), doraise=True)
    shutil.copy(compiled, program / "script")
    for words in (["script.pyc", "raise"], ["script", "plain", "alone"]):
        found = run(program, *words, turbo=True)
        assert found == run(program, *words, turbo=False)
        assert "SourcelessFileLoader" in found[1], found
    compiled.write_bytes(b"xxxx" + compiled.read_bytes()[4:])
    code, _, errors = run(program, "script.pyc", "plain", turbo=True)
    plain = run(program, "script.pyc", "plain", turbo=False)
    assert code == plain[0] == 1
    assert errors.splitlines()[-1] == plain[2].splitlines()[-1] == "RuntimeError: Bad magic number in .pyc file"


def test_a_program_that_is_run_has_our_queues(program: Path) -> None:
    code, _, errors = run(program, "script.py", "plain", "-q", turbo=True)
    assert (code, errors) == (0, "ours:TurboQueue\n")
    assert run(program, "script.py", "plain", "-q", turbo=False)[2] == "ours:Queue\n"


def test_a_traceback_shows_our_queues_but_not_how_the_program_was_run(program: Path) -> None:
    code, _, errors = run(program, "script.py", "full", turbo=True)
    assert code == 1
    assert os.path.join("tqshim", "queues", "queue.py") in errors
    assert errors.endswith("Full\n")
    assert "run.py" not in errors
    assert "__main__.py" not in errors


def test_a_syntax_error_is_shown_as_without_us(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def f(:\n", "utf-8")
    assert run(tmp_path, "bad.py", turbo=True) == run(tmp_path, "bad.py", turbo=False)


def test_ctrl_c_ends_a_program_as_without_us(tmp_path: Path) -> None:
    program = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nsignal.pause()\n"
    (tmp_path / "interrupted.py").write_text(program, "utf-8")
    assert run(tmp_path, "interrupted.py", turbo=True)[0] == -signal.SIGINT


def test_a_program_that_installs_nothing_else_is_found_by_spawned_children_elsewhere(tmp_path: Path) -> None:
    """The package is found where it was found, although the program's path does not lead there."""
    script = tmp_path / "moved.py"
    script.write_text(
        textwrap.dedent(
            """
            import multiprocessing, sys

            def child(says):
                says.put(type(multiprocessing.Queue()).__name__)

            if __name__ == "__main__":
                for method in ("spawn", "forkserver"):
                    context = multiprocessing.get_context(method)
                    says = context.SimpleQueue()
                    process = context.Process(target=child, args=(says,))
                    process.start()
                    print(says.get())
                    process.join()
            """
        ),
        "utf-8",
    )
    home = os.path.dirname(os.path.dirname(tqshim.__file__))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-S", "-m", "tqshim", "run", str(script)],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "TurboQueue\nTurboQueue\n"


RETURNING = """
import multiprocessing, os, sys
from concurrent.futures import ProcessPoolExecutor

class Mine:
    def __init__(self, number):
        self.number = number

def child(says):
    says.put(Mine(7))

if __name__ == "__main__":
    print(sys.argv, sys.path[:1], __name__, __spec__ and __spec__.name, sorted(globals()))
    print(__loader__ and getattr(__loader__, "__name__", type(__loader__)), repr(sys.stdin.read()))
    print(sys.modules["__mp_main__"] is sys.modules["__main__"])
    for method in sys.argv[1].split(","):
        context = multiprocessing.get_context(method)
        says = context.Queue()
        process = context.Process(target=child, args=(says,))
        process.start()
        print(method, type(says.get()) is Mine)
        process.join()
        with context.Pool(1) as pool:
            print([type(one) is Mine for one in pool.map(Mine, range(2))])
        with ProcessPoolExecutor(1, mp_context=context) as executor:
            print([type(one) is Mine for one in executor.map(Mine, range(2))])
    if "fail" in sys.argv:
        raise ValueError("the end")
"""
EVERY = ",".join(METHODS)


@pytest.mark.in_turn
@pytest.mark.parametrize(
    ("words", "methods"),
    sampled(
        "sending",
        [
            (["script.py"], EVERY),
            (["-m", "module"], EVERY),
            (["-m", "package"], "fork"),
            (["-m", "package.module"], EVERY),
            (["folder"], "fork"),
            (["program.pyz"], "fork"),
            (["-"], "fork"),
            (["-c", RETURNING], "fork"),
        ],
        3,
    ),
    ids=lambda words: "" if isinstance(words, str) else " ".join(words[:2])[:20],
)
def test_what_children_send_back_of_a_class_of_the_program_arrives(
    tmp_path: Path, words: list[str], methods: str
) -> None:
    """Where children can't import the program, as without us: by ``fork`` alone."""
    for place in ("script.py", "module.py", "package/module.py", "package/__main__.py", "folder/__main__.py"):
        path = tmp_path / place
        path.parent.mkdir(exist_ok=True)
        path.write_text(RETURNING, "utf-8")
    (tmp_path / "package" / "__init__.py").touch()
    zipapp.create_archive(tmp_path / "folder", tmp_path / "program.pyz")
    ended = []
    for turbo in (False, True):
        done = subprocess.run(
            [sys.executable, *(["-m", "tqshim", "run"] if turbo else []), *words, methods, "fail"],
            cwd=tmp_path,
            input=RETURNING,
            capture_output=True,
            text=True,
            timeout=120,
        )
        ended.append((done.returncode, done.stdout, done.stderr))
    assert "False" not in ended[0][1]
    assert ended[1] == ended[0]
    assert ended[0][0] == 1, ended[0]


@pytest.mark.in_turn
def test_an_archive_may_bring_the_package(tmp_path: Path) -> None:
    """Its children import it from there, before they have its path."""
    folder = tmp_path / "application"
    shutil.copytree(Path(tqshim.__file__).parent, folder / "tqshim", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "work.py").write_text(
        "import multiprocessing\ndef tell(says):\n    says.put(type(multiprocessing.Queue()).__name__)\n", "utf-8"
    )
    (folder / "__main__.py").write_text(
        "import multiprocessing, tqshim, work\ntqshim.install()\n"
        "for method in multiprocessing.get_all_start_methods():\n"
        "    context = multiprocessing.get_context(method)\n"
        "    says = context.Queue()\n"
        "    process = context.Process(target=work.tell, args=(says,))\n"
        "    process.start()\n"
        "    print(says.get(timeout=60))\n"
        "    process.join()\n",
        "utf-8",
    )
    zipapp.create_archive(folder, tmp_path / "program.pyz")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    words = [sys.executable, "program.pyz"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout == "TurboQueue\n" * len(METHODS), done.stderr


@pytest.mark.in_turn
def test_usage_is_shown_where_there_is_nothing_to_run(tmp_path: Path) -> None:
    assert run(tmp_path, turbo=True)[0] == 2
    assert run(tmp_path, "-m", turbo=True)[0] == 2
    assert run(tmp_path, "--help", turbo=True)[:1] == (0,)
    for arguments, code in (([], 2), (["no_such_command"], 2), (["--help"], 0)):
        command = [sys.executable, "-m", "tqshim", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == code
        assert "usage: python -m tqshim" in done.stdout + done.stderr
