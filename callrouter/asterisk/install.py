"""Finding an Asterisk on this machine: which binary, how it is run, where its modules and data are.

Three kinds are known: a system package, a build of one's own (both run as they are), and Debian's package extracted
beside the project by ``scripts/provision-asterisk`` (run through its own dynamic loader, needing nothing of the host).
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from callrouter.config import Settings
from callrouter.errors import AsteriskError

MINIMUM = (20, 0, 0)
ADVISED = (22, 10, 1)

# Beside the PATH, which for an ordinary user often lacks these.
SYSTEM_DIRS = ("/usr/sbin", "/usr/local/sbin")
SYSTEM_ROOTS = (Path("/"), Path("/usr/local"))
SYSTEM_CONF = Path("/etc/asterisk/asterisk.conf")

_LOADERS = {
    "x86_64": "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    "aarch64": "usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1",
}
_VERSION = re.compile(r"Asterisk (?:certified[-/])?(\d+)\.(\d+)(?:\.(\d+))?")
_DIRECTORY = re.compile(r"^\s*(astmoddir|astdatadir)\s*=>?\s*([^;\s]+)", re.MULTILINE)
_MEND = "./dev setup provides Asterisk 22"


@dataclass(frozen=True, slots=True)
class AsteriskInstall:
    """An Asterisk that runs here.

    :param binary: the ``asterisk`` executable
    :param loader: what must stand before ``binary`` on the command line; empty for a system installation
    :param version: (major, minor, patch)
    :param modules_dir: for ``astmoddir``
    :param data_dir: for ``astdatadir``: sounds, music, documentation, rest-api
    :param prefix: root of an installation that is not the system's; None for the system's
    """

    binary: Path
    loader: tuple[str, ...]
    version: tuple[int, int, int]
    modules_dir: Path
    data_dir: Path
    prefix: Path | None

    def command(self, *args: str) -> list[str]:
        """The argument vector that runs this Asterisk with ``args``."""
        return [*self.loader, str(self.binary), *args]

    def has_module(self, name: str) -> bool:
        """Whether module ``name`` (with or without ``.so``) can be loaded."""
        return (self.modules_dir / (name if name.endswith(".so") else f"{name}.so")).is_file()

    @property
    def version_text(self) -> str:
        return ".".join(map(str, self.version))


def parse_version(text: str) -> tuple[int, int, int]:
    """Version out of what ``asterisk -V`` prints, e.g. ``Asterisk 22.10.1~dfsg+~cs6.15`` → (22, 10, 1).

    :raises AsteriskError: there is no version in it
    """
    found = _VERSION.search(text)
    if not found:
        raise AsteriskError(f"no Asterisk version in {text.strip()[:200]!r}", hint=_MEND)
    return int(found[1]), int(found[2]), int(found[3] or 0)


def advisory(version: tuple[int, int, int]) -> str | None:
    """What to say about a version that works but is not the advised one; None when there is nothing to say."""
    text = ".".join(map(str, version))
    if version < MINIMUM:
        return f"Asterisk {text} is too old: {MINIMUM[0]} is the least"
    if version < ADVISED:
        advised = ".".join(map(str, ADVISED))
        return f"Asterisk {text} works, but {advised} or newer is advised: it has known faults and gaps mended since"
    return None


def cache_dir() -> Path:
    """Where ``scripts/provision-asterisk`` keeps an extracted Asterisk: CALLROUTER_CACHE, else below XDG_CACHE_HOME."""
    if own := os.environ.get("CALLROUTER_CACHE"):
        return Path(own).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "callrouter"


def find_asterisk(settings: Settings) -> AsteriskInstall:
    """The Asterisk to run: ``settings.asterisk_prefix``, else the system's if recent enough, else the cached one.

    Runs ``asterisk -V``, which takes some 50 ms.

    :raises AsteriskError: there is none, or only ones that are too old or do not run; names each that was looked at
    """
    if settings.asterisk_prefix:
        prefix = Path(settings.asterisk_prefix).expanduser().absolute()
        install = _from_prefix(prefix)
        if install is None:
            raise AsteriskError(
                f"asterisk_prefix: there is no Asterisk in {prefix}",
                hint=f"set asterisk_prefix to one, or leave it empty: {_MEND}",
            )
        if install.version < MINIMUM:
            raise AsteriskError(f"asterisk_prefix: {advisory(install.version)} ({prefix})", hint=_MEND)
        return install
    seen: list[str] = []
    for candidate, look in (("the system", _from_system), (str(cached := cache_dir() / "asterisk-forky"), None)):
        try:
            install = look() if look else _from_prefix(cached)
        except AsteriskError as exc:
            seen.append(f"{candidate}: {exc.message}")
            continue
        if install is None:
            seen.append(f"{candidate}: none")
        elif install.version < MINIMUM:
            seen.append(f"{candidate}: {install.binary} is {install.version_text}, too old")
        else:
            return install
    raise AsteriskError(f"no Asterisk {MINIMUM[0]} or newer was found ({'; '.join(seen)})", hint=_MEND)


def _from_prefix(prefix: Path) -> AsteriskInstall | None:
    """Debian's tree extracted to ``prefix``, or a build configured with ``--prefix=prefix``."""
    extracted = prefix / "usr/sbin/asterisk"
    if extracted.is_file():
        loader = _loader(prefix)
        modules = next(_module_dirs(prefix), None)
        if modules is None:
            raise AsteriskError(f"{extracted} has no modules below {prefix}", hint=f"remove {prefix}; {_MEND}")
        return AsteriskInstall(
            extracted, loader, _ask_version(*loader, str(extracted)), modules, prefix / "usr/share/asterisk", prefix
        )
    built = prefix / "sbin/asterisk"
    if built.is_file():
        version = _ask_version(str(built))
        return AsteriskInstall(built, (), version, prefix / "lib/asterisk/modules", prefix / "var/lib/asterisk", prefix)
    return None


def _from_system() -> AsteriskInstall | None:
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_DIRS])
    found = shutil.which("asterisk", path=path)
    if found is None:
        return None
    binary = Path(found)
    version = _ask_version(found)
    configured = _configured_dirs(SYSTEM_CONF)
    # A build in /usr/local has its modules there, even when a package's are in /usr too.
    roots = sorted(SYSTEM_ROOTS, key=lambda root: binary.is_relative_to(root) and -len(root.parts))
    modules = configured.get("astmoddir") or next((d for root in roots for d in _module_dirs(root)), None)
    if modules is None:
        raise AsteriskError(f"{binary} is there, but its modules are not", hint="reinstall Asterisk")
    data = configured.get("astdatadir") or next(
        (d for d in (Path("/usr/share/asterisk"), Path("/var/lib/asterisk")) if (d / "documentation").is_dir()),
        Path("/usr/share/asterisk"),
    )
    return AsteriskInstall(binary, (), version, modules, data, None)


def _configured_dirs(conf: Path) -> dict[str, Path]:
    """astmoddir and astdatadir as the system's own asterisk.conf has them, as far as they exist."""
    try:
        text = conf.read_text("utf-8", errors="replace")
    except OSError:
        return {}
    return {key: Path(value) for key, value in _DIRECTORY.findall(text) if Path(value).is_dir()}


def _module_dirs(root: Path) -> Iterator[Path]:
    patterns = ("usr/lib/*/asterisk/modules", "usr/lib/asterisk/modules", "usr/lib64/asterisk/modules")
    for pattern in (*patterns, "lib/asterisk/modules", "lib64/asterisk/modules"):
        yield from (found for found in sorted(root.glob(pattern)) if (found / "res_ari.so").is_file())


def _loader(prefix: Path) -> tuple[str, ...]:
    relative = _LOADERS.get(platform.machine())
    if relative is None or not (loader := prefix / relative).is_file():
        return ()
    return str(loader), "--library-path", str(loader.parent)


def _ask_version(*command: str) -> tuple[int, int, int]:
    try:
        done = subprocess.run([*command, "-V"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise AsteriskError(f"{command[-1]} does not run: {exc}", hint=_MEND) from exc
    if done.returncode != 0:
        reason = (done.stderr or done.stdout).strip().splitlines()
        raise AsteriskError(
            f"{command[-1]} does not run: {reason[-1] if reason else f'exit {done.returncode}'}", hint=_MEND
        )
    return parse_version(done.stdout)
