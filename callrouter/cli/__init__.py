"""The admin's command line: ``callrouter …``. One file per noun; each parses, calls and prints.

Nothing heavy is imported before a command runs, so that help and completion answer at once.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """The ``callrouter`` command. Ends the process."""
    try:
        from callrouter.cli.app import root

        root.main(prog_name="callrouter")
    except (KeyboardInterrupt, SystemExit) as exc:
        # From here on Ctrl-C ends the process without more words.
        import signal

        signal.signal(signal.SIGINT, signal.SIG_DFL)
        from callrouter.cli import interrupt

        if isinstance(exc, KeyboardInterrupt):  # while the program was being loaded
            interrupt.leave(sys.argv[1:])
        if exc.code == interrupt.INTERRUPTED:
            interrupt.leave()
        raise
