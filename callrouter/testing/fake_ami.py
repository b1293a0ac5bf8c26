"""FakeAmi: a small manager interface in the test's own event loop."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from types import TracebackType
from typing import Self

BANNER = b"Asterisk Call Manager/11.0.0\r\n"


class FakeAmi:
    """An AMI server on a free loopback port.

    It knows Challenge, Login (plain and MD5), Ping, Logoff and CoreStatus; other actions are answered with what
    :meth:`reply` was given, else as unknown. Every action is kept in ``actions``.
    """

    def __init__(self, user: str = "callrouter", secret: str = "secret") -> None:  # noqa: S107 - a fake's
        self.user = user
        self.secret = secret
        self.port = 0
        self.actions: list[dict[str, str]] = []
        self.frozen = False
        """True: connections are taken and nothing is answered, as by a stopped process."""
        self.logins = 0
        self._replies: dict[str, list[bytes]] = {}
        self._writers: list[asyncio.StreamWriter] = []
        self._logged_in: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; a stopped one listens on the port it had."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        await self.drop()
        if server is not None:
            await server.wait_closed()

    async def drop(self) -> None:
        """Cut every connection."""
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def reply(self, action: str, *messages: str) -> None:
        r"""Answer an action with these messages (lines separated by \n); the ActionID is added to each."""
        self._replies[action.lower()] = [message.strip().encode() for message in messages]

    def send_event(self, name: str, **fields: str) -> None:
        """Send an event to all who are logged in."""
        self.send_raw(_message({"Event": name, **fields}))

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        for writer in self._logged_in:
            writer.write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._writers.append(writer)
        challenge = str(secrets.randbelow(10**9))
        try:
            if not self.frozen:
                writer.write(BANNER)
            while True:
                block = await reader.readuntil(b"\r\n\r\n")
                pairs = (line.split(": ", 1) for line in block.decode("utf-8", "replace").strip().split("\r\n"))
                action = {pair[0]: pair[-1] for pair in pairs}
                self.actions.append(action)
                if not self.frozen:
                    self._answer(writer, action, challenge)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.remove(writer)
            if writer in self._logged_in:
                self._logged_in.remove(writer)
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)

    def _answer(self, writer: asyncio.StreamWriter, action: dict[str, str], challenge: str) -> None:
        name = action.get("Action", "").lower()
        fields: dict[str, str]
        if name in self._replies:
            for message in self._replies[name]:
                writer.write(message.replace(b"\n", b"\r\n") + f"\r\nActionID: {action['ActionID']}\r\n\r\n".encode())
            return
        if name == "challenge":
            fields = {"Response": "Success", "Challenge": challenge}
        elif name == "login":
            key = hashlib.md5((challenge + self.secret).encode(), usedforsecurity=False).hexdigest()
            proven = action.get("Key") == key or action.get("Secret") == self.secret
            if not proven or action.get("Username") != self.user:
                fields = {"Response": "Error", "Message": "Authentication failed"}
            else:
                fields = {"Response": "Success", "Message": "Authentication accepted"}
                self.logins += 1
                self._logged_in.append(writer)
        elif writer not in self._logged_in:
            fields = {"Response": "Error", "Message": "Permission denied"}
        elif name == "ping":
            fields = {"Response": "Success", "Ping": "Pong"}
        elif name == "corestatus":
            fields = {"Response": "Success", "CoreCurrentCalls": "0"}
        else:
            fields = {"Response": "Error", "Message": f"Invalid/unknown command: {action.get('Action')}."}
        writer.write(_message({**fields, "ActionID": action.get("ActionID", "")}))
        if name == "login" and fields["Response"] == "Success":
            writer.write(_message({"Event": "FullyBooted", "Status": "Fully Booted"}))


def _message(fields: dict[str, str]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode() + b"\r\n"
