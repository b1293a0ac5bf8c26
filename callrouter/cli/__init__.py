"""The admin's command line: ``callrouter …``. One file per noun; each parses, calls and prints.

Nothing heavy is imported before a command runs, so that help and completion answer at once.
"""

from __future__ import annotations

import _thread
import sys
import time
from types import FrameType

__all__ = ["main"]


def _lost(lost: sys.UnraisableHookArgs) -> None:
    """Ctrl-C in the middle of what cannot raise (a weak reference's callback while modules load) comes once more."""
    if isinstance(lost.exc_value, KeyboardInterrupt):
        # From a thread, as it would be lost again in here.
        _thread.start_new_thread(_once_more, (_thread.get_ident(),))
    else:
        sys.__unraisablehook__(lost)


def _once_more(thread: int) -> None:
    """Interrupt the main thread as soon as it has left the hook."""
    import signal

    while _in_the_hook(sys._current_frames().get(thread)):  # noqa: SLF001 - there is no other name for it
        time.sleep(0.001)
    signal.pthread_kill(thread, signal.SIGINT)


def _in_the_hook(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code is not _lost.__code__:
        frame = frame.f_back
    return frame is not None


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
