"""Files that ship beside the code: Asterisk templates, dialplans, sample flows."""

from __future__ import annotations

from pathlib import Path


def resource_dir(name: str) -> Path:
    """A directory of data files, as it is installed or as it stands in a checkout.

    :param name: "asterisk-conf" or "dialplans"
    """
    package = Path(__file__).resolve().parent
    installed = package / "_data" / name
    return installed if installed.is_dir() else package.parent / name
