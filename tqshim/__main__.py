"""``python -m tqshim``.

Lives here: the way in, and nothing else; the commands stand in ``cli``.
"""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
