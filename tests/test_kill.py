"""SIGKILL and SIGSTOP at random instants: nobody hangs, nothing is doubled, lost or left (see kill_run.py)."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys

import pytest
from sampling import sampled

KILL_RUN = pathlib.Path(__file__).absolute().parent / "kill_run.py"
ALL_OFF = "leases,reservations,spinning"


def kill_run(seconds: int, options: str, without: str = "") -> None:
    words = [sys.executable, str(KILL_RUN), "--seconds", str(seconds), *options.split()]
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "TQSHIM_WITHOUT": without},
    )
    try:
        output, _ = process.communicate(timeout=seconds + 150)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        output += "\nFOUND: the run itself hangs"
        process.returncode = -1
    print(output)
    assert process.returncode == 0, output


SMALL = "--limits 64 512 --file-bytes 8192"
"""Journals are rolled often, and batch files change often."""
RUNS = {
    "frequent rolls": "--limits 16 64 --file-bytes 8192 --many 20 --big",
    "a bound": "--maxsize 2000 --limits 64 512 --many 20",
    "one consumer and its lease": "--maxsize 100000 --consumers 1",
    "items one by one": f"{SMALL} --consumers 2 --one --pause 0.002",
    "items one by one, one consumer, which leases all that comes": f"{SMALL} --consumers 1 --one --pause 0.002",
    "counts, both signals, started in each way": "--joinable --limits 64 512 --many 20 --terminate 0.5 --spawn 0.2"
    " --forkserver 0.2",
    "durable": f"{SMALL} --durable --many 20 --big",
    "durable, bounded, blocks": f"{SMALL} --durable --maxsize 1000 --claimed 0.5",
    "a key": f"{SMALL} --authkey --many 20 --big",
    "a key, durable, blocks": f"{SMALL} --authkey --durable --claimed 0.5",
    "a key, a bound, one consumer": f"{SMALL} --authkey --maxsize 1000 --consumers 1",
}
"""All places that a bound has are there in the end."""
BLOCKS = ["--claimed 1", "--maxsize 100 --claimed 1", "--maxsize 1000 --claimed 0.5 --many 9"]


@pytest.mark.in_turn
@pytest.mark.parametrize("name", sampled("kills", list(RUNS), 1))
def test_queue_survives_random_kills(name: str) -> None:
    kill_run(3, RUNS[name])


@pytest.mark.in_turn
@pytest.mark.parametrize("options", sampled("kills of blocks", BLOCKS, 1))
def test_claimed_items_survive_random_kills(options: str) -> None:
    """All of them, each marked where it comes again; beside consumers that get."""
    kill_run(3, f"{SMALL} --consumers 4 {options}")


@pytest.mark.stress
@pytest.mark.parametrize("claimed", [1, 0.5])
@pytest.mark.parametrize("maxsize", [0, 1, 10, 1000])
def test_claimed_items_survive_random_kills_for_a_minute(maxsize: int, claimed: float) -> None:
    kill_run(60, f"--maxsize {maxsize} --claimed {claimed} --consumers 4 --limits 64 512 --file-bytes 8192 --big")


@pytest.mark.stress
@pytest.mark.parametrize("without", ["", ALL_OFF, "leases", "reservations", "spinning"])
@pytest.mark.parametrize("consumers", [1, 4])
@pytest.mark.parametrize("maxsize", [0, 1, 10, 1000, 100_000])
def test_random_kills_for_a_minute(maxsize: int, consumers: int, without: str) -> None:
    limits = "--limits 16 64 --file-bytes 8192" if consumers == 1 else "--limits 64 512"
    many = "--many 50" if maxsize != 1 else ""
    kill_run(60, f"--maxsize {maxsize} --consumers {consumers} {limits} {many} --big", without)


@pytest.mark.stress
@pytest.mark.parametrize("options", ["", "--maxsize 1000", "--maxsize 100000 --consumers 1", "--consumers 1"])
def test_random_kills_for_a_minute_with_journals_as_they_are(options: str) -> None:
    kill_run(60, options)


@pytest.mark.stress
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("options", ["", "--maxsize 1000 --consumers 1", "--joinable --claimed 0.3"])
def test_random_kills_for_ten_minutes(options: str, seed: int) -> None:
    """Stops of up to five seconds."""
    kill_run(600, f"--seed {seed} --limits 64 512 --file-bytes 65536 --many 20 --stopped 1 5 {options}")


@pytest.mark.stress
@pytest.mark.parametrize("options", ["--maxsize 0 --many 10", "--maxsize 100 --limits 64 512"])
def test_random_kills_for_a_minute_with_every_process_spawned(options: str) -> None:
    kill_run(60, f"--spawn 1 {options}")
