"""Run the interpreter's own queue tests with other queue classes in the place of multiprocessing's.

    python compat/cpython_suite.py [--method fork|spawn|forkserver|all] [--queue tqshim|stdlib|module:Class]
                                   [-k PATTERN] [-v]

The tests are those of the interpreter that runs this file: every test of test._test_multiprocessing that makes a
multiprocessing queue, and what test.test_queue asks of a FIFO, of its joins and its shutdown. None is copied. EXCLUDED
names each test that is left out, with its reason; AdaptedTest has substitutes for those whose purpose holds for
TurboQueue, too.

Flow: the parent starts one worker per start method, in a session of its own, with the choice in the environment
variable SETTING. A process that imports this module with SETTING set (the worker, each child that the tests spawn) puts
the class under test into multiprocessing and makes the test classes here, under names that a child can import.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import faulthandler
import fnmatch
import functools
import gc
import importlib
import inspect
import multiprocessing
import multiprocessing.context
import multiprocessing.queues
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types
import unittest
import weakref
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = str(Path(__file__).resolve().parent.parent)
NAME: Final = "compat.cpython_suite"  # The name under which children import this file.
SETTING: Final = "TQSHIM_CPYTHON_SUITE"  # "module:Class method"
QUEUES: Final = {"tqshim": "tqshim:TurboQueue", "stdlib": "multiprocessing.queues:Queue"}
FAMILY: Final = {"tqshim:TurboQueue": ("tqshim:JoinableTurboQueue", "tqshim:SimpleTurboQueue")}
"""By class under test: those for multiprocessing.JoinableQueue and SimpleQueue. Of others, the stdlib's stay there."""
METHODS: Final = ("fork", "spawn", "forkserver")
END_TIMEOUT: Final = 20.0  # Seconds in which a worker must end, once its tests are over.
TEST_TIMEOUT: Final = 120.0  # Seconds for one test; the slowest of the stdlib's takes about ten on a busy machine.
FOREIGN: Final = {"pyqueue", "self.mgr", "self.manager"}  # Their Queue is queue.Queue, or a proxy of it.
MADE_IN_CHILD: Final = {"TestStdinBadfiledescriptor.test_queue_in_process"}  # No queue is made in the worker itself.


class Exclusion(NamedTuple):
    """A test (or a pattern of tests) that is not run on the versions `since` to `until`, both included.

    `family`: only with a class under test that is of FAMILY (True), or that is not (False)."""

    test: str
    since: tuple[int, int]
    until: tuple[int, int]
    reason: str
    family: bool | None = None


EXCLUDED: Final = (
    Exclusion(
        "WithProcessesTestQueue.test_task_done", (3, 9), (3, 15), "makes a JoinableQueue, which is the stdlib's", False
    ),
    Exclusion("TestSimpleQueue.*", (3, 9), (3, 15), "makes a SimpleQueue, which is the stdlib's", False),
    Exclusion(
        "TestSimpleQueue.test_closed", (3, 9), (3, 15),
        "looks at the two ends of the pipe; SimpleTurboQueue has none: AdaptedTest.test_closed_simple_queue_*", True,
    ),
    Exclusion(
        "WithProcessesTestQueue.test_queue_feeder_donot_stop_onexc", (3, 9), (3, 15),
        "asserts that put() hides a pickling error, which the feeder thread prints; TurboQueue raises it in put(): "
        "AdaptedTest.test_unpicklable_item_*",
    ),
    Exclusion(
        "TestStartMethod.test_mixed_startmethod", (3, 11), (3, 15),
        "asserts that a semaphore in a queue of the fork context cannot be spawned; TurboQueue has none and travels: "
        "AdaptedTest.test_queue_of_any_context_*",
    ),
    Exclusion("FifoTest.test_queue_task_done", (3, 9), (3, 15), "task_done() is not multiprocessing.Queue's", False),
    Exclusion("FifoTest.test_queue_join", (3, 9), (3, 15), "join() is not multiprocessing.Queue's", False),
    Exclusion("FifoTest.test_shutdown_*", (3, 13), (3, 15), "shutdown() is not multiprocessing.Queue's", False),
    Exclusion(
        "FifoTest.test_negative_timeout_raises_exception", (3, 9), (3, 15),
        "queue.Queue's refusal; multiprocessing.Queue takes a negative timeout as zero",
    ),
    Exclusion(
        "SimpleFifoTest.test_negative_timeout_raises_exception", (3, 9), (3, 15),
        "queue.SimpleQueue's refusal; multiprocessing.Queue takes a negative timeout as zero",
    ),
    Exclusion(
        "SimpleFifoTest.test_references", (3, 9), (3, 15),
        "puts instances of a local class, which cannot be pickled: AdaptedTest.test_references_*",
    ),
    Exclusion(
        "FailingFifoTest.test_failing_queue", (3, 9), (3, 15), "overrides queue.Queue's private hooks _put and _get"
    ),
)  # fmt: skip


# -- The class under test takes its place


def find(name: str) -> Any:
    """Return the class that `name` ("module:Class") leads to."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def setting() -> tuple[Any, str] | None:
    """Return the class under test and the start method of this run; None outside of one."""
    if SETTING not in os.environ:
        return None
    name, method = os.environ[SETTING].split()
    return find(name), method


def family() -> tuple[Any, Any] | None:
    """Return the classes for JoinableQueue and SimpleQueue in this run; None if the stdlib's stay in place."""
    name, _, _ = os.environ.get(SETTING, "").partition(" ")
    return (find(FAMILY[name][0]), find(FAMILY[name][1])) if name in FAMILY else None


def substitute(cls: Any) -> None:
    """Make multiprocessing.Queue, the Queue of each context and multiprocessing.queues.Queue lead to `cls`, and
    JoinableQueue and SimpleQueue to its family.

    Only the package's attribute `queues` is replaced, by a copy: the stdlib's module calls its own Queue by its global
    name, so JoinableQueue would break if that name changed its meaning.
    """

    def Queue(self: Any, maxsize: int = 0) -> Any:  # the stdlib's name
        return cls(maxsize, ctx=self.get_context())

    def JoinableQueue(self: Any, maxsize: int = 0) -> Any:
        return relatives[0](maxsize, ctx=self.get_context())

    def SimpleQueue(self: Any) -> Any:
        kind = importlib.import_module("tqshim.queues.contexts").wants_a_pipe
        return (queues.SimpleQueue if kind(1) else relatives[1])(ctx=self.get_context())

    queues: Any = sys.modules["multiprocessing.queues"]
    relatives: Any = family()
    package: Any = multiprocessing
    package.queues = types.ModuleType("multiprocessing.queues")
    vars(package.queues).update(vars(queues), Queue=cls)
    base: Any = multiprocessing.context.BaseContext
    base.Queue = Queue
    context: Any = vars(multiprocessing.context)["_default_context"]
    package.Queue = context.Queue
    if relatives:
        vars(package.queues).update(JoinableQueue=relatives[0], SimpleQueue=relatives[1])
        base.JoinableQueue, base.SimpleQueue = JoinableQueue, SimpleQueue
        package.JoinableQueue, package.SimpleQueue = context.JoinableQueue, context.SimpleQueue


def fifo_class(base: Any) -> Any:
    """Return `base` with what test_queue expects of queue.Queue's outside: name, signature, two attributes."""

    class Queue(base):  # type: ignore[misc]
        maxsize = 0

        def __init__(self, maxsize: int = 0) -> None:
            super().__init__(maxsize, ctx=multiprocessing.get_context())
            self.maxsize = maxsize

        @property
        def unfinished_tasks(self) -> int:
            return int(self.stats().unfinished)

    class SettlingQueue(Queue):
        """Waits for the delay that the stdlib's documentation allows between put() and empty() or get_nowait()."""

        def _settle(self) -> None:
            deadline = time.monotonic() + 1
            while self.qsize() and super().empty() and time.monotonic() < deadline:
                time.sleep(0.0001)

        def empty(self) -> bool:
            self._settle()
            return bool(super().empty())

        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            if not block:
                self._settle()
            return super().get(block, timeout)

    SettlingQueue.__name__ = Queue.__name__
    return SettlingQueue if base is sys.modules["multiprocessing.queues"].Queue else Queue


def make_tests(cls: Any, method: str, namespace: dict[str, Any]) -> None:
    """Put the interpreter's test classes, bound to `cls` and `method`, into `namespace`."""
    suite: Any = importlib.import_module("test._test_multiprocessing")
    suite.install_tests_in_module_dict(namespace, method)
    support: Any = importlib.import_module("test.support")
    support.real_max_memuse = 8 << 30  # Bytes. 3.14 declares 100 MB for each of 50 threads, which take far less.
    support.verbose = 0  # No report on the memory that a test takes.
    source: Any = importlib.import_module("test.test_queue")
    relatives = family()
    fifo = fifo_class(relatives[0] if relatives else cls)
    shutdown = getattr(queue, "ShutDown", None)
    members = {
        "__module__": namespace["__name__"],
        "queue": types.SimpleNamespace(Queue=fifo, Empty=queue.Empty, Full=queue.Full, ShutDown=shutdown),
        "type2test": fifo,
    }
    for name, mixin in (
        ("FifoTest", source.QueueTest),
        ("SimpleFifoTest", source.BaseSimpleQueueTest),
        ("FailingFifoTest", source.FailingQueueTest),
    ):
        namespace[name] = type(name, (mixin, unittest.TestCase), dict(members))


# -- Which tests


def queue_users(source: str) -> set[str]:
    """Return the functions of `source` ("name", "Class.name") that name a multiprocessing queue or another user."""
    functions: dict[str, ast.AST] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            functions[node.name] = node
        elif isinstance(node, ast.ClassDef):
            functions.update((f"{node.name}.{f.name}", f) for f in node.body if isinstance(f, ast.FunctionDef))
    users: set[str] = set()
    while True:
        more = {name for name, node in functions.items() if any(_names_queue(n, users) for n in ast.walk(node))}
        if more == users:
            return users
        users = more


def _names_queue(node: ast.AST, users: set[str]) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr in ("Queue", "JoinableQueue", "SimpleQueue") and ast.unparse(node.value) not in FOREIGN
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and "multiprocessing.Queue()" in node.value
    return isinstance(node, ast.Name) and node.id in users


def selected_tests(namespace: dict[str, Any]) -> dict[str, unittest.TestCase]:
    """Return the tests for a queue by their ids ("Class.test"), in the order of definition of their classes."""
    suite = importlib.import_module("test._test_multiprocessing")
    users = queue_users(inspect.getsource(suite))
    chosen: dict[str, unittest.TestCase] = {}
    for name, cls in namespace.items():
        if not (isinstance(cls, type) and issubclass(cls, unittest.TestCase)):
            continue
        if name.startswith(("WithManager", "WithThreads")):  # Their queues are not multiprocessing's.
            continue
        for test in unittest.defaultTestLoader.getTestCaseNames(cls):
            owner = next(base for base in cls.__mro__ if test in vars(base))
            if owner.__module__ != suite.__name__ or f"{owner.__name__}.{test}" in users:
                chosen[f"{name}.{test}"] = cls(test)
    return chosen


def leave_out(
    tests: set[str], table: tuple[Exclusion, ...], version: tuple[int, int], has_family: bool = False
) -> set[str]:
    """Return the tests that `table` excludes on `version`; LookupError if an entry for it matches none."""
    out: set[str] = set()
    for entry in table:
        if entry.since <= version <= entry.until and entry.family in (None, has_family):
            matching = set(fnmatch.filter(tests, entry.test))
            if not matching:
                where = ".".join(map(str, version))
                raise LookupError(f"exclusion {entry.test!r} matches no test of Python {where}: correct EXCLUDED")
            out |= matching
    return out


# -- What stands in for excluded tests


class Unpicklable:
    """An item whose pickling fails."""

    def __reduce__(self) -> Any:
        raise AttributeError("not to be pickled")


class Referable:
    """An item that can be pickled and weakly referred to."""


def put_one(target: Any) -> None:
    """Put 1: what a child process does."""
    target.put(1)


class AdaptedTest(unittest.TestCase):
    """The purpose of the excluded tests, for the stdlib's class and the class under test."""

    under_test: Any
    stdlib: bool

    def setUp(self) -> None:
        """Look up the class under test."""
        chosen = setting()
        assert chosen is not None
        self.under_test = chosen[0]
        self.stdlib = self.under_test is sys.modules["multiprocessing.queues"].Queue

    def put_unpicklable(self, target: Any) -> None:
        """Put an item that cannot be pickled: the stdlib prints the error later, other classes raise it here."""
        if self.stdlib:
            target.put(Unpicklable())
        else:
            with self.assertRaisesRegex(AttributeError, "not to be pickled"):
                target.put(Unpicklable())

    def test_unpicklable_item_is_reported_and_queue_goes_on(self) -> None:
        """An item behind one that could not be pickled arrives."""
        support: Any = importlib.import_module("test.support")
        with support.captured_stderr() as printed:
            q: Any = multiprocessing.Queue()
            self.put_unpicklable(q)
            q.put(True)
            self.assertTrue(q.get(timeout=30))
            q.close()
            q.join_thread()
        self.assertEqual("not to be pickled" in printed.getvalue(), self.stdlib)

    def test_unpicklable_item_takes_no_place(self) -> None:
        """A queue of one place has it again after an item that could not be pickled."""
        support: Any = importlib.import_module("test.support")
        with support.captured_stderr():
            q: Any = multiprocessing.Queue(maxsize=1)
            self.put_unpicklable(q)
            q.put(True, timeout=30)
            self.assertEqual(q.qsize(), 1)
            self.assertTrue(q.get(timeout=30))
            self.assertTrue(q.empty())
            self.assertEqual(q.qsize(), 0)
            q.close()
            q.join_thread()

    def test_queue_of_any_context_reaches_children_of_any_method(self) -> None:
        """A queue made by one context goes to a child of another, except where semaphores of the stdlib forbid it."""
        for made_by in METHODS:
            for started_by in METHODS:
                if self.stdlib and made_by == "fork" != started_by:
                    continue
                with self.subTest(made_by=made_by, started_by=started_by):
                    q = multiprocessing.get_context(made_by).Queue()
                    child: Any = multiprocessing.get_context(started_by)
                    process = child.Process(target=put_one, args=(q,))
                    process.start()
                    self.assertEqual(q.get(timeout=60), 1)
                    process.join(60)
                    self.assertEqual(process.exitcode, 0)

    def test_references_are_dropped_with_the_item(self) -> None:
        """The queue keeps no reference to an item that it has handed out."""
        q: Any = multiprocessing.Queue()
        for _ in range(20):
            q.put(Referable())
        for _ in range(20):
            reference = weakref.ref(q.get(timeout=30))
            gc.collect()
            self.assertIsNone(reference())

    def test_closed_simple_queue_is_of_no_use(self) -> None:
        """Every method of a closed SimpleQueue raises OSError."""
        multiprocessing.Queue().close()
        simple: Any = multiprocessing.SimpleQueue()
        simple.close()
        for act in (simple.get, simple.empty, lambda: simple.put(1)):
            self.assertRaises(OSError, act)

    def test_children_find_the_class_under_test(self) -> None:
        """A child that runs no function of the suite gets the same class from multiprocessing.Queue."""
        multiprocessing.Queue().close()
        expected = f"{self.under_test.__module__}:{self.under_test.__qualname__}"
        code = (
            "import multiprocessing, sys\ncls = type(multiprocessing.Queue())\n"
            f"sys.exit(f'{{cls.__module__}}:{{cls.__qualname__}}' != {expected!r})"
        )
        process = multiprocessing.Process(target=exec, args=(code, {}))
        process.start()
        process.join(60)
        self.assertEqual(process.exitcode, 0)


# -- The run


class Result(unittest.TextTestResult):
    """Ends a test that hangs, and fails one that passes without having made a queue of the class under test."""

    made = 0  # Queues that this process has made so far.
    made_before = 0

    def startTest(self, test: unittest.TestCase) -> None:  # unittest's name
        """Note how many queues were made before and set the alarm, which prints traces of all threads and exits."""
        super().startTest(test)
        self.made_before = Result.made
        faulthandler.dump_traceback_later(TEST_TIMEOUT, exit=True)

    def stopTest(self, test: unittest.TestCase) -> None:  # unittest's name
        """Cancel the alarm."""
        faulthandler.cancel_dump_traceback_later()
        super().stopTest(test)

    def addSuccess(self, test: unittest.TestCase) -> None:  # unittest's name
        """Accept a success that the class under test had a part in."""
        name = test.id()[len(NAME) + 1 :]
        if Result.made > self.made_before or name in MADE_IN_CHILD:
            super().addSuccess(test)
        else:
            try:
                raise AssertionError(f"{name} made no queue of the class under test")
            except AssertionError:
                self.addFailure(test, sys.exc_info())


def count_queues(cls: Any) -> None:
    """Let Result.made count the instances of `cls`."""
    init = cls.__init__

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # it becomes the class's own
        Result.made += 1
        init(self, *args, **kwargs)

    cls.__init__ = __init__


def work(patterns: list[str], verbose: bool) -> int:
    """Run the selected tests in this process, print a summary, return the exit code."""
    chosen = setting()
    assert chosen is not None
    cls, method = chosen
    tests = selected_tests(globals())
    excluded = leave_out(set(tests), EXCLUDED, sys.version_info[:2], family() is not None)
    for one in (cls, *(family() or ())):
        count_queues(one)
    running = {
        name: test
        for name, test in tests.items()
        if name not in excluded and (not patterns or any(fnmatch.fnmatchcase(name, p) for p in patterns))
    }
    if verbose:
        for entry in EXCLUDED:
            if set(fnmatch.filter(excluded, entry.test)):
                print(f"excluded {entry.test}: {entry.reason}", flush=True)
    suite = unittest.TestSuite(running.values())
    tests.clear()  # The suite drops each test that has run, and so must this runner: some tests keep their queues.
    running.clear()
    result_class: Any = Result
    runner = unittest.TextTestRunner(stream=sys.stdout, verbosity=2 if verbose else 1, resultclass=result_class)
    result = runner.run(suite)
    failures = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    passed = result.testsRun - failures - len(result.skipped)
    print(
        f"{method}, Python {sys.version.split()[0]}, {cls.__module__}.{cls.__qualname__}: {result.testsRun} run, "
        f"{failures} failed, {len(result.skipped)} skipped, {len(excluded)} excluded",
        flush=True,
    )
    if passed < 1 and not failures:
        print(f"{method}: no test was executed", flush=True)
    faulthandler.dump_traceback_later(END_TIMEOUT, exit=True)  # A failed test may have left threads that never end.
    return int(failures > 0 or passed < 1)


def run_method(name: str, method: str, options: list[str]) -> int:
    """Run the suite for one start method in a worker process of its own session; return its exit code."""
    paths = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")]))
    folder = tempfile.mkdtemp(prefix="suite-")  # Short, for sockets lie in it; killed tests leave it behind.
    environment = {**os.environ, "PYTHONPATH": paths, "TMPDIR": folder, SETTING: f"{name} {method}"}
    worker = subprocess.Popen([sys.executable, __file__, *options], env=environment, start_new_session=True)
    try:
        code = worker.wait()
    finally:
        # Not SIGKILL: the resource tracker ignores SIGTERM, and still unlinks what is left.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGTERM)
        shutil.rmtree(folder, ignore_errors=True)
    if code not in (0, 1):
        print(f"{method}: the worker ended with code {code} and without a result", flush=True)
    return code


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run each start method; return 0 if all passed."""
    parser = argparse.ArgumentParser(description="Run the interpreter's own queue tests against a queue class.")
    parser.add_argument("--method", choices=[*METHODS, "all"], default="all", help="start method (default: all)")
    parser.add_argument("--queue", default="tqshim", help="tqshim (default), stdlib (the control), or module:Class")
    parser.add_argument("-k", action="append", default=[], metavar="PATTERN", help="only matching tests (Class.test)")
    parser.add_argument("-v", "--verbose", action="store_true", help="name each test and each exclusion")
    given = parser.parse_args(arguments)
    if SETTING in os.environ:
        return work(given.k, given.verbose)
    name = QUEUES.get(given.queue, given.queue)
    if ":" not in name:
        parser.error(f"--queue {given.queue}: neither {' nor '.join(QUEUES)} nor module:Class")
    options = [*(f"-k={pattern}" for pattern in given.k), *(["-v"] if given.verbose else [])]
    methods = METHODS if given.method == "all" else (given.method,)
    codes = [run_method(name, method, options) for method in methods]
    return int(any(codes))


if __name__ == NAME:
    _chosen = setting()
    if _chosen is not None:
        substitute(_chosen[0])  # Before the import of the tests: their mixins take multiprocessing.Queue at once.
        make_tests(*_chosen, globals())
elif __name__ in ("__main__", "__mp_main__"):  # The worker or one of its children.
    if ROOT not in sys.path:
        sys.path.insert(0, ROOT)
    _suite = importlib.import_module(NAME)
    if __name__ == "__main__":
        sys.exit(_suite.main())
