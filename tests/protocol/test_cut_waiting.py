"""Nobody sleeps while there is something for him: small cases of waiting hold in every interleaving.

Lives here: the cases, the parts of the protocol that are left out, and where sleepers depend on their naps.  Not here:
the acts of sleepers and ringers (``wait_checker``).

Invariant: all cases of ``CASES`` hold, and each mutant of ``MUTANTS`` is caught by the case that stands with it.
"""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import pytest
from explorer import Result, explore
from sampling import sampled
from wait_checker import Waiter, Waits

PUTS = Waiter("putter")
GETS = Waiter()
WANTS = Waiter("wanter")
CLOSES = Waiter("closer")
TWO = PUTS._replace(left=2)
LATE = PUTS._replace(late=True)
THREADS = GETS._replace(slot=1), GETS._replace(slot=1)


class Case(NamedTuple):
    """Threads, and what may happen to them."""

    waiters: tuple[Waiter, ...]
    sizes: dict[str, Any]


def case(*waiters: Waiter, **sizes: Any) -> Case:
    return Case(waiters, sizes)


CASES: dict[str, Case] = {
    "one puts, one gets": case(TWO, GETS._replace(left=2)),
    "one puts, two get": case(TWO, GETS, GETS),
    "one puts through the journal, one gets": case(TWO, GETS._replace(left=2), counting=False),
    "two threads of a process get": case(TWO, *THREADS),
    "two want a place": case(PUTS, WANTS, WANTS),
    "one wants a place, one wants two": case(PUTS, WANTS._replace(wants=2), WANTS),
    "two threads want a place, and two": case(TWO, WANTS._replace(slot=1, wants=2), WANTS._replace(slot=1)),
    "one shuts down": case(PUTS, GETS, CLOSES),
    "a nap ends": case(PUTS, GETS, GETS, naps=1),
    "an exception ends a wait": case(PUTS, GETS, GETS, breaks=1),
    "one is killed": case(PUTS, GETS, GETS, kills=1),
    "one is killed, one puts later": case(PUTS, LATE, GETS, GETS, kills=1),
}
LARGE: dict[str, Case] = {
    "two put, two get": case(PUTS, PUTS, GETS, GETS),
    "two get, one of them twice": case(TWO._replace(left=3), GETS, GETS._replace(left=2)),
    "three get": case(TWO, GETS, GETS, GETS),
    "two get, through the journal": case(TWO._replace(left=3), GETS, GETS._replace(left=2), counting=False),
    "three threads of two processes get": case(TWO, *THREADS, GETS),
    "places are wanted": case(TWO, WANTS._replace(wants=2), WANTS, WANTS),
    "places are wanted, a wait is ended": case(TWO, WANTS._replace(wants=2), WANTS, breaks=1),
    "one shuts down": case(PUTS, GETS, GETS, CLOSES),
    "naps end": case(TWO, GETS, GETS, naps=2),
    "exceptions end waits": case(TWO, GETS, GETS, breaks=2),
    "one is killed, an exception ends a wait": case(TWO, GETS, GETS, kills=1, breaks=1),
    "one of three is killed, one puts later": case(PUTS, LATE, GETS, GETS, GETS, kills=1),
    "one is killed, one puts later through the journal": case(TWO, LATE, GETS, GETS, kills=1, counting=False),
}
MUTANTS: list[tuple[str, str]] = [
    ("sleep barrier", "one puts, one gets"),
    ("ring fence", "one puts, one gets"),
    ("cell first", "one puts, one gets"),
    ("put fence", "one puts through the journal, one gets"),
    ("sleep fence", "one puts through the journal, one gets"),
    ("more", "one puts, two get"),
    ("said again", "one puts, two get"),
    ("pass barrier", "one puts, two get"),
    ("aside", "one wants a place, one wants two"),
    ("rung again", "an exception ends a wait"),
    ("say again", "one is killed, one puts later"),
]


def check(found: Case, x86: bool, **more: Any) -> Result:
    return explore(Waits(*found.waiters, x86=x86, **found.sizes, **more))


@pytest.mark.in_turn
@pytest.mark.parametrize(("name", "x86"), sampled("waiting", list(product(CASES, (True, False))), 6))
def test_nobody_sleeps_while_there_is_something_for_him(name: str, x86: bool) -> None:
    """And the next put rings for a sleeper."""
    found = check(CASES[name], x86)
    assert found.kind is None, str(found)


@pytest.mark.stress
@pytest.mark.parametrize("x86", [True, False], ids=["x86", "other"])
@pytest.mark.parametrize("name", LARGE)
def test_nobody_sleeps_in_a_larger_case(name: str, x86: bool) -> None:
    """The same, with more threads and more that happens to them."""
    found = check(LARGE[name], x86)
    assert found.kind is None, str(found)


@pytest.mark.in_turn
@pytest.mark.parametrize(
    ("what", "name", "x86"), sampled("parts", [(*one, x86) for one in MUTANTS for x86 in (True, False)], 5)
)
def test_without_this_part_somebody_sleeps_on(what: str, name: str, x86: bool) -> None:
    """On x86-64 and elsewhere: each fence and each look is there for a reason that the checker finds."""
    assert check(CASES[name], x86, without=[what]).kind == "asleep"


def test_where_stores_come_in_any_order_the_cell_is_seen_before_the_word() -> None:
    """Else a ring clears the word and finds nobody; on x86-64 they come in their order."""
    found = CASES["one puts, one gets"]
    assert check(found, x86=True, without=["cell fence"]).kind is None
    assert check(found, x86=False, without=["cell fence"]).kind == "asleep"


def test_a_ring_that_is_lost_with_its_process_leaves_the_others_to_their_naps() -> None:
    """Who was rung for, or is about to ring, is killed: this is what naps are for."""
    found = check(CASES["one is killed"], True, excused=False)
    assert found.kind in ("asleep", "deaf")
    assert any(step.startswith("kill") for step in found.path)


@pytest.mark.parametrize(
    ("waiters", "naps"), [((PUTS, GETS), 1), ((TWO, GETS), 1), ((PUTS, GETS, GETS), 2), ((PUTS, WANTS), 1)]
)
def test_a_put_that_is_seen_late_costs_a_nap_and_no_more(waiters: tuple[Waiter, ...], naps: int) -> None:
    """On x86-64 the first nap has no barrier: should a store not be seen by the look, though time has passed, whoever
    sleeps looks after that nap, and then with one."""
    found = explore(Waits(*waiters, x86=True, timeless=True))
    assert found.kind == "asleep"
    found = explore(Waits(*waiters, x86=True, timeless=True, naps=naps))
    assert found.kind is None, str(found)


@pytest.mark.parametrize("name", ["two threads of a process get", "two want a place"])
def test_threads_that_are_alike_may_have_each_others_names(name: str) -> None:
    """So that one of such worlds is enough: both can be reached, or none, and both are known by the same key."""
    model = Waits(*CASES[name].waiters)
    seen = {model.start()}
    waiting = [*seen]
    while waiting:
        new = {following for _, following in model.steps(waiting.pop())} - seen
        seen |= new
        waiting += new
    (group,) = model.alike
    others = {world: model.renamed(world, dict(zip(group, reversed(group)))) for world in seen}
    assert {*others.values()} == seen
    assert {model.key(world) for world in seen} <= seen
    keys = {model.key(world) for world in seen}
    assert len(seen) / 2 <= len(keys) < 0.53 * len(seen)
