"""``python -m callrouter`` is ``callrouter``."""

from __future__ import annotations

from callrouter.cli import main

if __name__ == "__main__":
    main()
