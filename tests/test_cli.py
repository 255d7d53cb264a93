"""``python -m tqshim``: every command says what it does, gives examples that run, and stands on a page."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import documents
import pytest

from tqshim import __version__
from tqshim.cli import main as cli

ROOT = Path(__file__).resolve().parent.parent
NAMES = sorted(cli.COMMANDS)


def examples(name: str) -> list[str]:
    """The command lines of a command's examples, without the remarks behind them."""
    lines = (re.sub(r"\s+#.*", "", line).strip() for line in cli.COMMANDS[name].EXAMPLE.splitlines())
    return [line for line in lines if line]


@pytest.mark.parametrize("name", NAMES)
def test_a_command_says_in_one_line_what_it_does(name: str) -> None:
    assert re.fullmatch(r"[A-Z].{20,90}\.", cli.COMMANDS[name].SUMMARY)


@pytest.mark.parametrize("name", NAMES)
def test_a_commands_examples_are_its_own_and_are_accepted(name: str) -> None:
    assert examples(name)
    for line in examples(name):
        words = shlex.split(re.split(" [<>]", line)[0])
        assert words[:4] == ["python", "-m", "tqshim", name]
        assert cli.parser().parse_args(words[3:]).command == name


@pytest.mark.parametrize("name", NAMES)
def test_a_commands_examples_have_a_remark_each(name: str) -> None:
    assert all(re.search(r"\S\s+# \w", line) for line in cli.COMMANDS[name].EXAMPLE.splitlines())


@pytest.mark.parametrize("name", NAMES)
def test_a_command_stands_on_a_page_with_a_remark(name: str) -> None:
    assert re.search(rf"^python -m tqshim {name}\b.* # \w", documents.TEXT, re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_all_options_of_a_command_have_help(name: str) -> None:
    whole = cli.parser()
    (commands,) = [action for action in whole._actions if action.choices and action.dest == "command"]
    own = commands.choices[name]  # type: ignore[index,call-overload]
    assert not [action.option_strings for action in own._actions if not action.help]
    assert cli.COMMANDS[name].EXAMPLE in own.format_help()


def test_without_a_command_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 2
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert all(name in shown and cli.COMMANDS[name].SUMMARY[:40] in shown for name in NAMES)


def test_the_module_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tqshim", "--version"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, f"tqshim {__version__}\n")
