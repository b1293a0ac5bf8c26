"""The admin's command line: ``callrouter …``. One file per noun; each parses, calls and prints.

Nothing heavy is imported before a command runs, so that help and completion answer at once.
"""

from __future__ import annotations

import _thread
import sys

__all__ = ["main"]


def _lost(lost: sys.UnraisableHookArgs) -> None:
    """Ctrl-C in the middle of what cannot raise (a weak reference's callback while modules load) comes once more."""
    if isinstance(lost.exc_value, KeyboardInterrupt):
        _thread.interrupt_main()
    else:
        sys.__unraisablehook__(lost)


def main() -> None:
    """The ``callrouter`` command. Ends the process."""
    sys.unraisablehook = _lost
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
