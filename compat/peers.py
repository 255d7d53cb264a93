"""TurboQueue beside multiprocessing.Queue and faster-fifo, on faster-fifo's published comparison.

    python -m compat.peers                 full counts, some minutes
    python -m compat.peers --scale 0.1     a tenth of the items; every option of `python -m tqshim bench`

The workload is that of `cpp_faster_fifo/tests/comparison_tests.py` in github.com/alex-petrenko/faster-fifo: six
configurations of producers x consumers, tuples of five equal numbers, a bound of 100,000, `put` and `get` one by one
with timeouts of 10 ms and a new try on `Full` and `Empty`.  `tqshim.bench` measures this, and says how.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tqshim.cli import main as cli


def main(arguments: Sequence[str]) -> int:
    """Run the comparison and return the exit status of the bench: 1 where a run lost, doubled or reordered items."""
    return cli.main(["bench", "--only", "bounded", "--scale", "1", "--within", "1800", *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
