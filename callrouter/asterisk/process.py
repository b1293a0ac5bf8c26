"""Running one private Asterisk as a child process: start until fully booted, ask it things, stop it.

The child dies with its parent. The kernel does that (``PR_SET_PDEATHSIG``), set by a few lines of Python that then
become Asterisk (``execv`` keeps the setting and the process id). A ``preexec_fn`` could set it too, but it runs Python
between fork and exec, which may deadlock in a process with threads. The signal is tied to the *thread* that started the
child: call ``start`` from a thread that lives as long as Asterisk shall (the main one).

Asterisk runs in a session of its own, so that Ctrl-C reaches only us and calls end in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import re
import signal
import socket
import sys
from pathlib import Path

from callrouter.asterisk.install import AsteriskInstall
from callrouter.errors import AsteriskError, ConfigError, ConflictError

# sockaddr_un.sun_path holds 108 bytes, the closing NUL included (unix(7)).
SOCKET_PATH_MAX = 107
_POLL = 0.05
_LOG_TAIL = 12

# argv: parent's pid, then what to become. The parent may be gone before prctl(1 = PR_SET_PDEATHSIG) is in force.
_BECOME = (
    "import ctypes,os,signal,sys\n"
    "ctypes.CDLL(None).prctl(1,int(signal.SIGTERM),0,0,0)\n"
    "if os.getppid()!=int(sys.argv[1]): sys.exit(1)\n"
    "os.execv(sys.argv[2],sys.argv[2:])\n"
)
_DIRECTORY = re.compile(r"^\s*(astrundir|astctl)\s*=>?\s*([^;\n]+)", re.MULTILINE)
_TELLING = re.compile(r"ERROR\[|\*\*\*|already in use|EXITING")
_PORT_TAKEN = re.compile(r"Address already in use|EADDRINUSE")


class AsteriskProcess:
    """One private Asterisk in the foreground.

    :param install: which Asterisk
    :param conf_file: its ``asterisk.conf``; names the run directory and so the control socket
    :param log: file that its standard output and error are appended to
    """

    def __init__(self, install: AsteriskInstall, conf_file: Path, log: Path) -> None:
        self.install = install
        self.conf_file = conf_file
        self.log = log
        self._child: asyncio.subprocess.Process | None = None
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """Process id; None before the first start."""
        return self._child.pid if self._child else None

    @property
    def returncode(self) -> int | None:
        """Exit code, negative for a signal; None while it runs or before the first start."""
        return self._child.returncode if self._child else None

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.returncode is None

    async def start(self, timeout: float = 30.0) -> None:
        """Start Asterisk and wait until it is fully booted.

        :param timeout: seconds to wait; afterwards the child is killed
        :raises ConflictError: an Asterisk runs on this run directory already, or a port is in use
        :raises ConfigError: the run directory's path is too long for a socket, or ``asterisk.conf`` names none
        :raises AsteriskError: it ended while starting, or did not finish in time; tells its last log lines
        """
        if self.running:
            raise ConflictError(f"this Asterisk runs already (pid {self.pid})")
        control = self._read_conf()
        lock = self._claim(control.parent)
        try:
            if _answers(control):
                raise ConflictError(
                    f"an Asterisk runs on {control.parent} already", hint="stop it first, or use another home"
                )
            # A socket that nobody listens on: left by one that was killed. Waiting below must not take it for ours.
            control.unlink(missing_ok=True)
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("ab") as output:
                self._log_start = output.tell()
                self._child = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid())),
                    *self.install.command("-C", str(self.conf_file), "-f", "-n"),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=control.parent,
                    start_new_session=True,
                    # Asterisk inherits the lock, which so lasts exactly as long as it, whatever becomes of us.
                    pass_fds=(lock,),
                )
        finally:
            os.close(lock)
        try:
            async with asyncio.timeout(timeout):
                await self._booted(control)
            # Asterisk goes on without a port that it could not have; for us that is no start.
            if taken := [line for line in self._logged() if _PORT_TAKEN.search(line)]:
                raise ConflictError(
                    f"Asterisk could not have a port it is configured for:\n{_indented(taken)}",
                    hint="stop what uses it (ss -tulpn shows it), or set another port",
                )
        except TimeoutError as exc:
            await self._kill()
            raise AsteriskError(
                f"Asterisk did not finish starting within {timeout:g} s; its last log lines:\n{self._last_lines()}",
                hint=f"see {self.log}",
            ) from exc
        except BaseException:
            await self._kill()
            raise

    async def rx(self, command: str, timeout: float = 10.0) -> str:
        """Run a command of Asterisk's CLI and return what it prints.

        :raises AsteriskError: Asterisk is not reachable, or does not answer within ``timeout`` seconds
        """
        if any(ord(char) < 32 for char in command):
            raise AsteriskError(f"control characters in the Asterisk command {command!r}")
        child = await asyncio.create_subprocess_exec(
            *self.install.command("-C", str(self.conf_file), "-rx", command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(timeout):
                output, _ = await child.communicate()
        except TimeoutError as exc:
            raise AsteriskError(f"Asterisk did not answer {command!r} within {timeout:g} s") from exc
        finally:
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                await child.wait()
        text = output.decode("utf-8", errors="replace")
        if child.returncode != 0:
            raise AsteriskError(
                f"Asterisk is not reachable for {command!r}: {text.strip()[-300:]}", hint="is it running?"
            )
        return text

    async def stop(self, grace: float = 5.0) -> int | None:
        """Stop Asterisk: ask it, then SIGTERM, then SIGKILL. Without a running child it does nothing.

        :param grace: seconds for each of the two polite ways
        :return: its exit code; None when it was never started
        """
        child = self._child
        if child is None or child.returncode is not None:
            return self.returncode
        # It may hang up on us while answering, which is what was asked for.
        with contextlib.suppress(AsteriskError):
            await self.rx("core stop now", timeout=grace)
        if not await self._ended(grace):
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGTERM)
            if not await self._ended(grace):
                await self._kill()
        return child.returncode

    async def wait(self) -> int:
        """Wait for the child to end and return its exit code (for supervision).

        :raises AsteriskError: it was never started
        """
        if self._child is None:
            raise AsteriskError("this Asterisk was never started")
        return await self._child.wait()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _read_conf(self) -> Path:
        """The control socket's path, as Asterisk will compute it."""
        try:
            text = self.conf_file.read_text("utf-8")
        except OSError as exc:
            raise ConfigError(f"{self.conf_file}: {exc.strerror}", hint="callrouter asterisk render writes it") from exc
        found: dict[str, str] = {key: value.strip() for key, value in _DIRECTORY.findall(text)}
        if "astrundir" not in found:
            raise ConfigError(f"{self.conf_file}: [directories] has no astrundir")
        run_dir = Path(found["astrundir"])
        control = run_dir / found.get("astctl", "asterisk.ctl")
        length = len(os.fsencode(control))
        if length > SOCKET_PATH_MAX:
            raise ConfigError(
                f"{control}: {length} bytes are too long for a control socket, {SOCKET_PATH_MAX} is the most",
                hint="use a home with a shorter path (CALLROUTER_HOME)",
            )
        if not run_dir.is_dir():
            raise ConfigError(f"{self.conf_file}: the run directory {run_dir} is not there")
        return control

    @staticmethod
    def _claim(run_dir: Path) -> int:
        """An exclusive lock on the run directory: two starts at the same moment cannot both see it free."""
        try:
            lock = os.open(run_dir / "asterisk.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise AsteriskError(f"{run_dir}: {exc.strerror}", hint="the run directory must be writable") from exc
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(lock)
            raise ConflictError(
                f"an Asterisk runs on {run_dir} already", hint="stop it first, or use another home"
            ) from exc
        return lock

    async def _booted(self, control: Path) -> None:
        while True:
            if not self.running:
                raise AsteriskError(
                    f"Asterisk ended while starting (exit {self.returncode}); "
                    f"its last log lines:\n{self._last_lines()}",
                    hint=f"see {self.log}",
                )
            if _answers(control):
                # "core waitfullybooted" answers when every module is loaded. An early caller may still be turned away.
                with contextlib.suppress(AsteriskError):
                    if "fully booted" in await self._rx_or_death("core waitfullybooted"):
                        return
            await asyncio.sleep(_POLL)

    async def _rx_or_death(self, command: str) -> str:
        """``rx`` without a time-out of its own, given up as soon as the child ends."""
        asking = asyncio.create_task(self.rx(command, timeout=3600))
        dying = asyncio.create_task(self.wait())
        try:
            await asyncio.wait({asking, dying}, return_when=asyncio.FIRST_COMPLETED)
            return asking.result() if asking.done() else ""
        finally:
            for task in (asking, dying):
                task.cancel()
            await asyncio.gather(asking, dying, return_exceptions=True)

    async def _ended(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.wait()
        except TimeoutError:
            return False
        return True

    async def _kill(self) -> None:
        if self._child is not None and self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._child.kill()
            await self._child.wait()

    def _logged(self) -> list[str]:
        """Lines logged since the start."""
        try:
            with self.log.open("rb") as file:
                file.seek(self._log_start)
                return [line for line in file.read().decode("utf-8", errors="replace").splitlines() if line.strip()]
        except OSError:
            return []

    def _last_lines(self) -> str:
        """The telling lines if there are any, else the last ones."""
        lines = self._logged()
        telling = [line for line in lines if _TELLING.search(line)]
        return _indented((telling or lines)[-_LOG_TAIL:])


def _indented(lines: list[str]) -> str:
    return "\n".join(f"  {line}" for line in lines) or "  (none)"


def _answers(control: Path) -> bool:
    """Whether somebody listens on a unix socket. Connecting to a local socket does not wait."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        try:
            client.connect(str(control))
        except BlockingIOError:
            return True  # its queue is full: somebody is there
        except OSError:
            return False
    return True


def port_in_use(host: str, port: int, udp: bool = False) -> bool:
    """Whether something is bound to a port, found by trying to bind it. IPv4 and IPv6 addresses; "0.0.0.0" for all.

    :raises ConfigError: the address is not one of this machine's, or the port needs privileges we lack
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as probe:
        if not udp:
            # As servers do: a connection of an earlier one in TIME_WAIT does not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            if not udp:
                probe.listen(1)
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                return True
            raise ConfigError(f"cannot listen on {host} port {port}: {exc.strerror}") from exc
    return False
