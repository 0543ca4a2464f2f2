"""How the commands read their words."""

from __future__ import annotations

import argparse
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Ends with the exit code 2."""
        self.exit(2, f"error: {message.removeprefix('argument ')}; {self.prog} --help tells more\n")


def command_parser(prog: str, name: str, text: str | None) -> Parser:
    """A parser whose help is a module's docstring.

    Args:
        prog: How the command was called, such as `python -m recipes.compare`.
        name: What the text calls it, such as `semimed compare`.
        text: The docstring.
    """
    described = (text or "").replace(name, prog)
    return Parser(prog, description=described, formatter_class=argparse.RawDescriptionHelpFormatter)
