"""What both long runs can be told on their command line."""

from __future__ import annotations

import argparse
import random


def parser(description: str | None, *, calls: int, per_second: float) -> argparse.ArgumentParser:
    """Options that both have, with these defaults."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--calls", type=int, default=calls, help="calls to place, at least (default: %(default)s)")
    made.add_argument("--per-second", type=float, default=per_second, help="calls a second (default: %(default)s)")
    made.add_argument(
        "--seed",
        type=int,
        default=random.randrange(10**6),
        help="of the random choices (default: another each time; printed)",
    )
    made.add_argument("--json", action="store_true", help="print the numbers as JSON")
    return made
