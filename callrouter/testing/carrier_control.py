"""The carrier's line to its own Asterisk: the manager protocol (AMI), as little of it as placing calls needs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterable

from callrouter.errors import AmiError, InputError

Message = dict[str, str]


class CarrierControl:
    """One AMI connection on loopback.

    :param on_event: called with every event, in the order Asterisk sent them, on the event loop; must not raise
    """

    def __init__(self, on_event: Callable[[Message], None], on_lost: Callable[[], None]) -> None:
        self._on_event = on_event
        self._on_lost = on_lost
        self._ids = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[Message]] = {}
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None

    async def connect(self, host: str, port: int, user: str, secret: str, *, timeout: float = 10.0) -> None:
        """Log in; tries again until ``timeout`` seconds have passed.

        :raises AmiError: nobody answers, or the login is refused
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            try:
                self._reader, self._writer = await asyncio.open_connection(host, port, limit=1 << 20)
                break
            except OSError as exc:
                if loop.time() > deadline:
                    raise AmiError(f"simulated carrier: no manager interface at {host}:{port}: {exc}") from exc
                await asyncio.sleep(0.05)
        await self._reader.readline()
        self._task = asyncio.create_task(self._read(), name="carrier-control")
        await self.action("Login", [("Username", user), ("Secret", secret)])

    async def action(self, name: str, fields: Iterable[tuple[str, str]] = (), *, timeout: float = 10.0) -> Message:
        """Send one action and return its response.

        :raises AmiError: refused, no answer in ``timeout`` seconds, or the connection is gone
        :raises InputError: a value with a line break
        """
        if self._writer is None or self._task is None or self._task.done():
            raise AmiError("simulated carrier: not running", hint="await carrier.start() first")
        action_id = f"cc-{next(self._ids)}"
        lines = [f"Action: {name}", f"ActionID: {action_id}"]
        for key, value in fields:
            if any(mark in value for mark in "\r\n\0"):
                raise InputError(f"{key}: line breaks cannot be sent ({value!r})")
            line = f"{key}: {value}"
            if len(line.encode()) > 1000:
                raise InputError(f"{key}: longer than the 1000 bytes Asterisk's manager reads")
            lines.append(line)
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[action_id] = answer
        try:
            self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
            async with asyncio.timeout(timeout):
                await self._writer.drain()
                response = await answer
        except TimeoutError as exc:
            raise AmiError(f"simulated carrier: no answer to {name} in {timeout:g} s") from exc
        except OSError as exc:
            raise AmiError(f"simulated carrier: connection lost during {name}: {exc}") from exc
        finally:
            self._waiting.pop(action_id, None)
        if response.get("Response") == "Error":
            raise AmiError(f"simulated carrier: {name} refused: {response.get('Message', '')}")
        return response

    async def close(self) -> None:
        """Close the connection; pending actions fail."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
            self._writer = None

    async def _read(self) -> None:
        assert self._reader is not None
        message: Message = {}
        output: list[str] = []
        try:
            while raw := await self._reader.readline():
                line = raw.decode("utf-8", "replace").rstrip("\r\n")
                if line:
                    key, _, value = line.partition(":")
                    if key == "Output":
                        output.append(value.removeprefix(" "))
                    else:
                        message[key] = value.removeprefix(" ")
                    continue
                if output:
                    message["Output"] = "\n".join(output)
                self._take(message)
                message, output = {}, []
        except (OSError, ValueError):
            pass
        finally:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(AmiError("simulated carrier: its Asterisk closed the manager connection"))
            self._on_lost()

    def _take(self, message: Message) -> None:
        if "Response" in message and "Event" not in message:
            answer = self._waiting.get(message.get("ActionID", ""))
            if answer is not None and not answer.done():
                answer.set_result(message)
        elif "Event" in message:
            self._on_event(message)


def escaped(value: str) -> str:
    """``value`` for an AMI ``Variable`` field, whose parser knows commas, quotes, brackets and backslashes."""
    return "".join("\\" + mark if mark in '\\,"()[]' else mark for mark in value)
