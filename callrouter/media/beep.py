"""The tone before somebody speaks. Asterisk's own is in a package of sounds that need not be there."""

from __future__ import annotations

import threading
from pathlib import Path

HZ = 1000
SECONDS = 0.4
RATE = 8000


def beep(directory: Path) -> Path:
    """The tone's file without extension, as Asterisk plays it; made once.

    :param directory: where it is kept
    :raises OSError: it cannot be written
    """
    path = directory / "beep"
    file = path.with_suffix(".ulaw")
    if not file.exists():
        # They take long to load, and a server has to be quick to start.
        import numpy as np
        import soundfile

        directory.mkdir(parents=True, exist_ok=True)
        moments = np.arange(int(SECONDS * RATE)) / RATE
        temporary = directory / f"beep.{threading.get_ident()}.new"
        soundfile.write(temporary, 0.3 * np.sin(2 * np.pi * HZ * moments), RATE, subtype="ULAW", format="RAW")
        temporary.replace(file)
    return path
