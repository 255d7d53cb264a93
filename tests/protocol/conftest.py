"""What several tests of the rules need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tqshim.protocol import extents


@pytest.fixture(scope="module", params=[extents.CHUNK, 1, 3])
def chunk(request: pytest.FixtureRequest) -> Iterator[int]:
    """So many extents are packed at a time: more than there are in most tests, and few."""
    before, extents.CHUNK = extents.CHUNK, request.param
    yield int(request.param)
    extents.CHUNK = before
