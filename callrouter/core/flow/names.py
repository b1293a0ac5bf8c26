"""How names, tags and values are written, in a flow and in what a service answers."""

from __future__ import annotations

import re

NODE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
"""Also of a value, an entry, a branch."""
TAG = re.compile(r"[^\s,;][^,;\n]{0,62}")
MAX_VALUE = 200
VALUE = re.compile(rf".{{1,{MAX_VALUE}}}")
