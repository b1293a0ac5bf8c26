"""Who has a port, read from /proc (proc(5)); no program is needed for it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

LISTEN = "0A"
BOUND_UDP = "07"
PROC = Path("/proc")


def owner(port: int, *, udp: bool, proc: Path = PROC) -> tuple[str, int] | None:
    """Command line and process id of who has a port, as far as this user may know.

    :returns: None when nobody has it, or it cannot be told who
    """
    inodes = _inodes(port, udp=udp, proc=proc)
    if not inodes:
        return None
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for directory in proc.iterdir():
        if not directory.name.isdigit():
            continue
        with suppress(OSError):
            for descriptor in (directory / "fd").iterdir():
                with suppress(OSError):
                    if str(descriptor.readlink()) in wanted:
                        return _command(directory), int(directory.name)
    return None


def _inodes(port: int, *, udp: bool, proc: Path) -> set[str]:
    found = set()
    for name in ("udp", "udp6") if udp else ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / name).read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            parts = line.split()
            if int(parts[1].rpartition(":")[2], 16) == port and parts[3] == (BOUND_UDP if udp else LISTEN):
                found.add(parts[9])
    return found


def _command(directory: Path) -> str:
    words = (directory / "cmdline").read_bytes().split(b"\0")
    return " ".join(word.decode("utf-8", "replace") for word in words if word)
