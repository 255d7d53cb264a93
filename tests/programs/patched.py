"""What runs in children of ``test_patching``, and what they say."""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import Queue
from typing import Any


def kinds() -> list[str]:
    """The classes of what this process gets where a program makes a queue."""
    module = [multiprocessing.Queue(), multiprocessing.JoinableQueue(3), multiprocessing.SimpleQueue(), Queue()]
    contexts = [multiprocessing.get_context(method) for method in multiprocessing.get_all_start_methods()]
    made = module + [queue for c in contexts for queue in (c.Queue(2), c.JoinableQueue(), c.SimpleQueue())]
    found = [type(queue).__name__ for queue in made]
    for queue in made:
        queue.close()
    return found


def lie_beside(queue: Any) -> None:
    """Make queues where that one is: a fork server may have been started when they were made elsewhere."""
    os.environ["TQSHIM_DIR"] = os.path.dirname(queue._queue._engine.folder.path)


def tell_kinds(says: Any) -> None:
    lie_beside(says)
    says.put(kinds())


def tell_kinds_of_a_child(method: str, says: Any) -> None:
    """As a child's child."""
    lie_beside(says)
    child: Any = multiprocessing.get_context(method)
    process = child.Process(target=tell_kinds, args=(says,))
    process.start()
    process.join(60)


def square(number: int) -> int:
    return number * number


def initialize(queue: Any) -> None:
    global shared
    shared = queue


def put_square(number: int) -> None:
    shared.put(number * number)


def pools_work(context: Any) -> list[Any]:
    """A pool, a pool that is given a queue, a pool derived from the standard library's, an executor."""
    found: list[Any] = []
    queue = context.Queue()
    with context.Pool(2, initialize, (queue,)) as pool:
        found.append(pool.map(square, range(4)))
        pool.map(put_square, range(4))
        found.append(sorted(queue.get() for _ in range(4)))

    class Derived(multiprocessing.pool.Pool):
        def _setup_queues(self) -> None:
            super()._setup_queues()  # type: ignore[misc]
            self._more = self._ctx.SimpleQueue()  # type: ignore[attr-defined]

    with Derived(1, context=context) as pool:
        found.append(pool.apply(square, (7,)))
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        found.append(list(executor.map(square, range(4))))
        try:
            executor.submit(square, lambda: 0).result(60)
        except Exception as error:
            found.append("lambda" in str(error))
    return found
