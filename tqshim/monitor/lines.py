"""Items as lines of text, and back.

Lives here: the forms of these lines.  Not here: what reads and writes them (``moving``).
"""

from __future__ import annotations

import base64
import binascii
import json
import pickle
from collections.abc import Callable
from typing import Any

from tqshim.queues.pickling import is_fault

__all__ = ["NotJSONError", "as_json", "as_pickle", "from_json", "from_pickle", "looks_pickled", "unpickled"]


def _as_it_is(item: Any) -> Any:
    return item


class NotJSONError(ValueError):
    """An item that JSON can't say, or would say otherwise."""


def unpickled(record: bytes, shown: Callable[[Any], Any] = _as_it_is) -> Any:
    """Unpickle a record, and return what ``shown`` makes of the item.  Raises ``ValueError`` for whatever unpickling or
    ``shown`` raises; what a signal handler raises meanwhile goes on to the program."""
    try:
        return shown(pickle.loads(record))
    except BaseException as error:
        if not is_fault(error):
            raise
        raise ValueError(f"can't be unpickled here: {type(error).__name__}: {error}") from None


def as_json(record: bytes, lossy: bool = False) -> str:
    """An item as one line of JSON.  This unpickles it.

    Raises ``NotJSONError`` for what JSON can't say, and, unless ``lossy``, for what would come back as something else
    (tuples, keys that are numbers).

    >>> as_json(pickle.dumps({"page": 1}))
    '{"page":1}'"""
    try:
        item = unpickled(record)
    except ValueError as error:
        raise NotJSONError(f"it {error}") from None
    try:
        line = json.dumps(item, allow_nan=False, separators=(",", ":"))
        same = lossy or _is_same(json.loads(line), item)
    except Exception as error:
        raise NotJSONError(f"{type(item).__name__}: {error}") from None
    if not same:
        raise NotJSONError(
            f"{type(item).__name__}: would come back from JSON as something else (a tuple as a list, ...)"
        )
    return line


def _is_same(back: Any, item: Any) -> bool:
    if type(back) is not type(item):
        return False
    if isinstance(item, dict):
        return back.keys() == item.keys() and all(_is_same(back[key], item[key]) for key in item)
    if isinstance(item, list):
        return len(back) == len(item) and all(map(_is_same, back, item))
    return bool(back == item)


def as_pickle(record: bytes) -> str:
    """An item's pickle as one line of base64: for any item, and without unpickling it.

    >>> pickle.loads(from_pickle(as_pickle(pickle.dumps({1, 2}))))
    {1, 2}"""
    return base64.b64encode(record).decode()


def from_json(line: str) -> bytes:
    """The record of an item that stands as JSON in a line.  Raises ``ValueError``.

    >>> pickle.loads(from_json('{"page": 1}'))
    {'page': 1}"""
    return pickle.dumps(json.loads(line))


def from_pickle(line: str) -> bytes:
    """The record that stands as base64 in a line.  Raises ``ValueError``; what the pickle holds is not looked at.

    >>> pickle.loads(from_pickle(as_pickle(pickle.dumps("a"))))
    'a'"""
    try:
        record = base64.b64decode(line, validate=True)
    except binascii.Error as error:
        raise ValueError(f"no base64: {error}") from None
    if not looks_pickled(record):
        raise ValueError("no pickle")
    return record


def looks_pickled(record: bytes) -> bool:
    """Whether the record begins and ends as pickles do."""
    return len(record) > 2 and record[0] == 0x80 and record[-1] == 0x2E
