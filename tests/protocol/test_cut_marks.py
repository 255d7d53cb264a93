"""What several producers put comes in the order of time, but for a period: small cases hold in every interleaving.

Lives here: the cases, the parts of the protocol that are left out, and how far the bound is reached.  Not here: the
steps of puts and cuts (``marks_checker``).

Invariant: all cases of ``CASES`` hold, and each mutant of ``MUTANTS`` is caught by the case that stands with it.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import pytest
from explorer import Result, explore
from marks_checker import Marks
from sampling import REST


class Case(NamedTuple):
    """So many puts of each producer, and what may happen to them."""

    puts: tuple[int, ...]
    sizes: dict[str, Any]


def case(*puts: int, **sizes: Any) -> Case:
    return Case(puts, {"period": 0, "ticks": 2, **sizes})


NOBODY: Final = ()
"""Nobody cuts but who has to, in front of a put, and one at the end."""

CASES: dict[str, Case] = {
    "one put each": case(1, 1, ticks=1),
    "marks of a period": case(2, 1, period=1, ticks=3, cuts=NOBODY),
    "a mark each tick": case(2, 1),
    "two cut": case(1, 1, cuts=(1, 1), ticks=1),
    "the journal ends between two CUTs": case(2, 1, cuts=NOBODY, most=1, apart=True),
    "the marks are used up": case(2, 1, most=1, cuts=NOBODY),
    "a put fails": case(3, 1, fails=(1,), cuts=NOBODY, most=3),
    "stores in any order": case(1, 1, x86=False, ticks=1),
}
LARGE: dict[str, Case] = {
    "marks of a period": case(2, 1, period=1, ticks=3),
    "marks of two ticks": case(2, 1, period=2, ticks=5),
    "two producers put twice": case(2, 2),
    "one of them puts four times": case(4, 1),
    "the marks are used up": case(3, 1, most=1),
    "the marks are used up in both logs": case(2, 2, most=1, cuts=NOBODY),
    "three producers": case(1, 1, 1),
    "three producers, nobody cuts": case(2, 1, 1, cuts=NOBODY),
    "two cut": case(1, 1, cuts=(1, 1)),
    "two cut, the marks are used up": case(2, 1, cuts=(1, 1), most=1, ticks=1),
    "one cuts twice": case(2, 1, cuts=(2,)),
    "two cut, the journal ends between two CUTs": case(1, 1, cuts=(1, 1), apart=True),
    "a put fails": case(2, 1, fails=(1,)),
    "another's put fails": case(1, 2, fails=(0, 1)),
    "two puts fail": case(2, 1, fails=(2,), cuts=NOBODY),
    "a put fails in each log": case(2, 1, fails=(1, 1), cuts=NOBODY),
    "a put fails, and the marks are used up": case(3, 1, fails=(1,), cuts=NOBODY, ticks=3),
    "stores in any order": case(1, 1, x86=False),
    "stores in any order, one puts twice": case(2, 1, x86=False),
    "stores in any order, two cut": case(1, 1, cuts=(1, 1), x86=False, ticks=1),
    "stores in any order, a put fails": case(2, 1, fails=(1,), cuts=NOBODY, x86=False, ticks=1),
}
MUTANTS: list[tuple[str, str]] = [
    ("array order", "marks of a period"),
    ("overwritten", "a put fails"),
    ("whole", "the marks are used up"),
    ("cut first", "the marks are used up"),
    ("all", "the marks are used up"),
    ("period", "marks of a period"),
    ("mark first", "one put each"),
    ("in order", "one put each"),
    ("counters first", "one put each"),
    ("quickly", "one put each"),
    ("never leads", "a mark each tick"),
    ("barrier", "stores in any order"),
]
"""What is left out, by the names that ``Marks`` knows."""
LONG: Final = ("a put fails", "overwritten", "never leads")
"""Cases and parts that take seconds."""


def check(found: Case, **more: Any) -> Result:
    return explore(Marks(*found.puts, **{**found.sizes, **more}))


@pytest.mark.in_turn
@pytest.mark.parametrize("name", [pytest.param(name, marks=REST if name in LONG else ()) for name in CASES])
def test_what_is_put_comes_in_the_order_of_time_but_for_a_period(name: str) -> None:
    """Nobody's item stands before one that was put more than a period before."""
    found = check(CASES[name])
    assert found.kind is None, str(found)


@pytest.mark.stress
@pytest.mark.parametrize("name", LARGE)
def test_a_larger_case_is_in_the_order_of_time_too(name: str) -> None:
    """The same, with more puts, producers and cuts."""
    found = check(LARGE[name])
    assert found.kind is None, str(found)


@pytest.mark.in_turn
@pytest.mark.parametrize(
    ("what", "name"), [pytest.param(*one, marks=REST if one[0] in LONG else (), id=one[0]) for one in MUTANTS]
)
def test_without_this_part_an_item_comes_too_early(what: str, name: str) -> None:
    """Each of them is there for a reason that the checker finds."""
    found = check(CASES[name], without=[what])
    assert found.kind == "late", f"{found}, and none is wrong"


def test_a_period_is_how_far_items_may_be_out_of_order() -> None:
    """They are, by that much: the bound says no more than is needed."""
    assert check(CASES["marks of a period"], bound=0).kind == "late"
