"""The command line: which commands there are.

Lives here: the registry of commands, and what they have in common.  Not here: what a command does; each is a module of
its own, which has what ``Command`` lists.

To add one, write its module and enter it in ``COMMANDS``; tests then ask for its summary, its example and its place in
the docs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final, Optional, Protocol

from tqshim import __version__
from tqshim.bench import command as bench
from tqshim.cli import check, drain, fill, ls, peek, recover, rm, run, stat, watch
from tqshim.kafka import command as kafka

__all__ = ["COMMANDS", "Command", "main", "parser"]


class Command(Protocol):
    """What the module of a command has."""

    @property
    def SUMMARY(self) -> str:
        """One line: what the command does."""

    @property
    def EXAMPLE(self) -> str:
        """Command lines with a remark each, as one would type them."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's options."""

    def run(self, options: argparse.Namespace) -> int:
        """Run the command, and return the exit status."""


COMMANDS: Final[dict[str, Command]] = {
    "ls": ls,
    "stat": stat,
    "watch": watch,
    "peek": peek,
    "check": check,
    "recover": recover,
    "drain": drain,
    "fill": fill,
    "rm": rm,
    "bench": bench,
    "kafka": kafka,
    "run": run,
}
"""The commands by name, in the order in which they are listed."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    whole = argparse.ArgumentParser(prog="python -m tqshim", description="Tools around TurboQueue.")
    whole.add_argument("--version", action="version", version=f"tqshim {__version__}")
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        own = commands.add_parser(
            name,
            help=command.SUMMARY,
            description=command.SUMMARY,
            epilog=f"for example:\n{command.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(own)
    return whole


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command that the arguments name and return the exit status.  Exits with 2 on wrong arguments."""
    options = parser().parse_args(arguments)
    return COMMANDS[options.command].run(options)
