"""Count what stands in every Python file of the running interpreter's own standard library.

A pool of worker processes takes file names from one queue, parses each file and puts what it found on a second
queue. Each worker stops at a sentinel. The table goes to stdout; progress and timing, which differ from run to
run, go to stderr.
"""

import argparse
import ast
import collections
import multiprocessing
import os
import platform
import signal
import sys
import sysconfig
import time
import warnings
from multiprocessing import Queue

TOP = 10  # rows in each of the two lists of the table
NOT_STDLIB = {"site-packages", "dist-packages", "__pycache__"}
# What a file that is no Python, on purpose, may raise: bad grammar or encoding, null bytes, nesting too deep.
UNPARSABLE = (SyntaxError, ValueError, RecursionError, MemoryError)

Found = collections.namedtuple("Found", "lines size imports functions classes modules longest")


def find_files(folder):
    """Return the paths of all Python files below folder, relative to it, in a fixed order."""
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - NOT_STDLIB)
        files += [os.path.relpath(os.path.join(parent, name), folder) for name in names if name.endswith(".py")]
    return sorted(files)


def examine(folder, name):
    """Parse one file and count."""
    with open(os.path.join(folder, name), "rb") as file:
        source = file.read()
    imports, functions, classes = 0, 0, 0
    modules = collections.Counter()
    longest = []
    for node in ast.walk(ast.parse(source, name)):
        if isinstance(node, ast.Import):
            imports += 1
            modules.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imports += 1
            if not node.level:
                modules[node.module.partition(".")[0]] += 1
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            functions += 1
            longest.append((node.end_lineno - node.lineno + 1, name, node.lineno, node.name))
        elif isinstance(node, ast.ClassDef):
            classes += 1
    longest.sort(key=lambda row: (-row[0], row[1:]))
    return Found(source.count(b"\n"), len(source), imports, functions, classes, modules, longest[:TOP])


def work(folder, tasks, results):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business: it ends the workers
    warnings.simplefilter("ignore")  # old test files are full of invalid escapes
    for name in iter(tasks.get, None):
        try:
            results.put((name, examine(folder, name), None))
        except (OSError, *UNPARSABLE) as error:
            results.put((name, None, type(error).__name__))


class Progress:
    """Show on stderr how far the run is: in place on a terminal, otherwise a line now and then."""

    def __init__(self, total):
        self.total = total
        self.in_place = sys.stderr.isatty()
        self.every = 0.1 if self.in_place else 2.0  # seconds
        self.started = time.monotonic()
        self.shown = self.started - self.every

    def show(self, done, name):
        now = time.monotonic()
        if now - self.shown < self.every and done < self.total:
            return
        self.shown = now
        line = f"{done:,} of {self.total:,} files, {done / max(now - self.started, 1e-9):,.0f} a second"
        if self.in_place:
            end = "\n" if done == self.total else ""
            print(f"\r{line}  {name[-40:]:40}", end=end, file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)


def run(folder, files, count):
    """Parse files with count worker processes; return what was found and why files were skipped, both by name."""
    tasks = Queue()
    results = Queue()
    workers = [multiprocessing.Process(target=work, args=(folder, tasks, results)) for _ in range(count)]
    for worker in workers:
        worker.start()
    try:
        for name in files:
            tasks.put(name)
        for _ in workers:
            tasks.put(None)

        found, skipped = {}, {}
        progress = Progress(len(files))
        for done in range(1, len(files) + 1):
            name, result, error = results.get()
            if error is None:
                found[name] = result
            else:
                skipped[name] = error
            progress.show(done, name)
        for worker in workers:
            worker.join()
    except KeyboardInterrupt:
        for worker in workers:
            worker.terminate()
        tasks.cancel_join_thread()  # no worker is left to take the names that are still in the queue
        raise
    return found, skipped


def print_table(found, skipped):
    reasons = collections.Counter(skipped.values())
    because = ", ".join(f"{name} {count}" for name, count in sorted(reasons.items()))
    print(f"Python {platform.python_version()}")
    print(f"{'files parsed':14} {len(found):>9,}")
    print(f"{'files skipped':14} {len(skipped):>9,}" + (f"  ({because})" if because else ""))
    for title in ("lines", "imports", "functions", "classes"):
        print(f"{title:14} {sum(getattr(result, title) for result in found.values()):>9,}")

    modules = collections.Counter()
    for result in found.values():
        modules.update(result.modules)
    print("\nimported most     times")
    for module, count in sorted(modules.items(), key=lambda row: (-row[1], row[0]))[:TOP]:
        print(f"{module:14} {count:>9,}")

    rows = [row for result in found.values() for row in result.longest]
    print("\nlongest functions lines")
    for length, name, line, function in sorted(rows, key=lambda row: (-row[0], row[1:]))[:TOP]:
        print(f"{function[:40]:40} {length:>6,}  {name}:{line}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", default=sysconfig.get_path("stdlib"), help="what to parse instead")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a processor)")
    parser.add_argument("--method", choices=multiprocessing.get_all_start_methods(), help="how they are started")
    parser.add_argument("--limit", type=int, help="parse only the first LIMIT files")
    args = parser.parse_args()
    if args.workers < 1:
        parser.error("--workers must be 1 or more")
    if args.method:
        multiprocessing.set_start_method(args.method)

    files = find_files(args.folder)[: args.limit]
    started = time.monotonic()
    found, skipped = run(args.folder, files, args.workers)
    seconds = time.monotonic() - started

    print_table(found, skipped)
    sys.stdout.flush()
    size = sum(result.size for result in found.values()) / 1e6
    print(
        f"{len(files):,} files, {size:.1f} MB in {seconds:.2f} s with {args.workers} workers"
        f" ({multiprocessing.get_start_method()}): {len(files) / seconds:,.0f} files a second",
        file=sys.stderr,
    )


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
