"""The admin's command line: ``callrouter …``. One file per noun; each parses, calls and prints.

Nothing heavy is imported before a command runs, so that help and completion answer at once.
"""

from __future__ import annotations

import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """The ``callrouter`` command."""
    from callrouter.cli.app import root

    root.main(prog_name="callrouter")
    sys.exit(0)
