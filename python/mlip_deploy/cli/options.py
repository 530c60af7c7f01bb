"""What the subcommands' options have in common: lists, engines, devices, and `--json`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Container, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from mlip_deploy.engines import ENGINES


class Parser(argparse.ArgumentParser):
    """Takes options by their whole names, and the words of one list with blanks between them.

    `--engines ase, lammps` is `--engines ase,lammps`, and `--elements Si O` is `--elements Si,O`. What cannot belong to
    the list is left for the next argument.
    """

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **{"allow_abbrev": False, **options})

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse does, which calls it for each subcommand; an unknown option is refused by the subcommand."""
        names = {
            kind: {name for action in self._actions if action.type is kind for name in action.option_strings}
            for kind in (comma_separated, counts, symbols)
        }
        lists = set.union(*names.values())
        words = _joined(sys.argv[1:] if args is None else args, lists, names[symbols])
        options, rest = super().parse_known_args(words, namespace)
        unknown = [word.partition("=")[0] for word in rest if word.startswith("--")]
        if unknown:
            known = [name for action in self._actions for name in action.option_strings]
            close = get_close_matches(unknown[0], known, n=1)
            self.error(
                f"unrecognized arguments: {' '.join(rest)}" + "".join(f". Did you mean {name}?" for name in close)
            )
        return options, rest

    def error(self, message: str) -> NoReturn:
        """As argparse does, with the example of the command."""
        end = "" if message.endswith("?") else "."
        super().error(f"{message}{end} For {self.epilog}" if (self.epilog or "").startswith("example") else message)


SYMBOLS = re.compile(r"[A-Z][a-z]?([,\s]+[A-Z][a-z]?)*,?")
"""What can only be chemical symbols: neither a family, nor a model, nor a file with a suffix."""


def _joined(words: Sequence[str], lists: Container[str], of_symbols: Container[str]) -> list[str]:
    """The words with those of one list put together."""
    joined: list[str] = []
    name, started = "", False  # the option whose list may go on, and whether it has a word yet
    for word in words:
        if word.startswith("-") and word.partition("=")[0] in lists:
            name, started = word.partition("=")[0], "=" in word
        elif name and not started:
            started = True
        elif (
            name
            and not word.startswith("-")
            and (
                joined[-1].rstrip().endswith(",")
                or word.startswith(",")
                or (name in of_symbols and SYMBOLS.fullmatch(word) is not None)
            )
        ):
            joined[-1] += f",{word}"
            continue
        else:
            name = ""
        joined.append(word)
    return joined


def comma_separated(text: str) -> list[str]:
    """Words between commas, without blanks around them and without empty ones."""
    return [word.strip() for word in text.split(",") if word.strip()]


def symbols(text: str) -> list[str]:
    """Chemical symbols between commas or blanks."""
    return text.replace(",", " ").split()


def counts(text: str) -> list[int]:
    """Positive numbers between commas."""
    words = comma_separated(text)
    if not words or not all(word.isascii() and word.isdigit() and int(word) > 0 for word in words):
        raise argparse.ArgumentTypeError(f"'{text}': expected positive numbers such as 1,2")
    return [int(word) for word in words]


def add_engines(parser: argparse.ArgumentParser, known: Sequence[str], default: Sequence[str]) -> None:
    """`--engines` of a command that runs in several."""
    parser.add_argument(
        "--engines",
        "--engine",
        type=comma_separated,
        default=list(default),
        metavar="ENGINES",
        help=f"comma-separated, of {', '.join(known)}; default: {','.join(default)}",
    )


def add_engine(parser: argparse.ArgumentParser, default: str, purpose: str = "") -> None:
    """`--engine` of a command that runs in one."""
    parser.add_argument(
        "--engine",
        "--engines",
        choices=ENGINES,
        default=default,
        metavar="ENGINE",
        help=f"{purpose}one of {', '.join(ENGINES)}; default: {default}",
    )


def add_hardware(parser: argparse.ArgumentParser, models: str = "model") -> None:
    """`--threads` and `--device`."""
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help=f"CPU threads in the {models}; default: the engine's own"
    )
    add_device(parser, models)


def add_device(parser: argparse.ArgumentParser, models: str = "model") -> None:
    """`--device`."""
    parser.add_argument("--device", default="cpu", help=f"of the {models}: cpu (default), cuda, cuda:N or auto")


def add_json(parser: argparse.ArgumentParser, content: str) -> None:
    """`--json`, which every command takes that has numbers to give: to a file, or to standard output."""
    parser.add_argument(
        "--json",
        nargs="?",
        type=_not_an_artifact,
        const="-",
        metavar="OUT",
        help=f"{content} as JSON: to the file OUT, without it to standard output in place of the table",
    )


def _not_an_artifact(text: str) -> str:
    if re.search(r"\.mlip\.pt2?$", text):
        raise argparse.ArgumentTypeError(
            f"'{text}' is the name of an artifact, which would be replaced. Put {text} before --json, or name a file: "
            "--json OUT"
        )
    return text
