"""panoramisk, mended where it would hurt.

panoramisk's Manager, protocol, actions and message parser are used; replaced here are the parts of version 1.4 that

- drop a UTF-8 character that is split across two reads (bytes were decoded read by read),
- send unanswered actions again after a reconnect (an Originate would ring twice),
- log a whole action when it cannot be written, and messages at debug level,
- break the connection when a callback raises or an Originate has no Async header,
- reconnect on their own, for ever, also after a refused login.

A :class:`Connection` is one connection: when it is lost, it is thrown away.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import structlog
from panoramisk.actions import Action
from panoramisk.ami_protocol import AMIProtocol
from panoramisk.manager import Manager
from panoramisk.message import Message

from callrouter.asterisk.ami_events import AmiEvent, AmiResponse, Headers
from callrouter.errors import AmiError

log = structlog.get_logger(__name__)

# panoramisk writes messages, and with them telephone numbers and secrets, to whatever logger it is given.
_silent = logging.Logger("callrouter.panoramisk", logging.CRITICAL + 1)  # noqa: LOG001 - belongs to no tree on purpose

_END = b"\r\n\r\n"
_BANNER = b"Asterisk Call Manager/"
MAX_MESSAGE_BYTES = 4 * 1024 * 1024


def fields_of(fields: dict[str, Any]) -> dict[str, str | list[str]]:
    """Checked header values of an action.

    :raises AmiError: a name or value with a line break, which could smuggle in another action
    """
    checked: dict[str, str | list[str]] = {}
    for name, value in fields.items():
        if value is None:
            continue
        values = [str(item) for item in value] if isinstance(value, (list, tuple)) else [str(value)]
        if any(char in text for text in (name, *values) for char in "\r\n\0") or ":" in name:
            raise AmiError(f"AMI header {name!r} has a line break or NUL in it: refused")
        checked[name] = values if isinstance(value, (list, tuple)) else values[0]
    return checked


_ONCE = ("Event", "ActionID", "EventList", "Channel", "Uniqueid", "Linkedid", "RemoteAddress")


def is_forged(message: Message) -> bool:
    """Whether a message says twice what Asterisk says once.

    Asterisk does not escape line breaks in what callers send (a number with %0d%0a in it): they become headers.
    """
    return any(isinstance(message.get(name), list) for name in _ONCE)


class ListAction(Action):
    """An action whose answer is complete when its list is, going by the EventList headers."""

    @property
    def under_way(self) -> bool:
        """The list has begun and, as long as this action is waiting, not ended."""
        return bool(self.responses) and str(self.responses[0].get("EventList", "")).lower() == "start"

    def add_message(self, message: Message) -> bool:
        if is_forged(message):
            log.warning("ami_entry_forged", action=self["action"])
            return False
        self.responses.append(message)
        # The last event of a list is called so: an EventList header alone may be what a caller calls himself.
        ended = len(self.responses) > 1 and message.get("Event", "").lower().endswith(("complete", "cancelled"))
        if self.under_way and not (ended and message.get("EventList", "").lower() in ("complete", "cancelled")):
            return False
        if not self.future.done():
            self.future.set_result(self.responses)
        return True


class Wire(AMIProtocol):
    """The protocol: bytes to messages and back."""

    version: str | None
    responses: dict[str, Action]

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.log = _silent
        self._buffer = bytearray()
        self._abandoned: deque[str] = deque(maxlen=100)

    def send(self, data: Action, as_list: bool | None = None) -> asyncio.Future[list[Message]]:
        del as_list  # panoramisk's; ListAction sees for itself what is a list
        self.responses[data.id] = data
        if self.closed or self.transport.is_closing():
            self.responses.pop(data.id)
            data.future.set_exception(AmiError(f"AMI {data['action']}: the connection is closed"))
        else:
            self.transport.write(str(data).encode("utf-8", "replace"))
        future: asyncio.Future[list[Message]] = data.future
        return future

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self.version is None and self._buffer.startswith(_BANNER) and b"\r\n" in self._buffer:
            line, _, rest = bytes(self._buffer).partition(b"\r\n")
            self.version = line.removeprefix(_BANNER).decode("ascii", "replace")
            self._buffer = bytearray(rest)
        if _END not in self._buffer:
            if len(self._buffer) > MAX_MESSAGE_BYTES:
                log.error("ami_message_too_long", size=len(self._buffer))
                self.transport.abort()
            return
        # Messages are cut out as bytes and decoded whole, so that no character is cut in two.
        *messages, rest = bytes(self._buffer).split(_END)
        self._buffer = bytearray(rest)
        for raw in messages:
            try:
                message = Message.from_line(raw.decode("utf-8", "replace").strip("\r\n"))
                if message is not None:
                    self.handle_message(message)
            except Exception:  # one bad message must not cost the connection
                log.exception("ami_message_failed", size=len(raw))

    def handle_message(self, message: Message) -> None:
        action_id = message.get("ActionID", "")
        if isinstance(action_id, list):
            action_id = action_id[0]  # ours comes before what a caller can add
        action = self.responses.get(action_id)
        # Asterisk writes an answer in one go: what stands within a list without its id was put there by a caller.
        if action is None and any(isinstance(each, ListAction) and each.under_way for each in self.responses.values()):
            log.warning("ami_message_forged")
        elif action is not None:
            if action.add_message(message):
                self.responses.pop(action_id, None)
        elif is_forged(message):
            log.warning("ami_event_forged")
        elif "Event" in message and action_id not in self._abandoned:
            self.factory.dispatch(message)

    def forget(self, action: Action) -> None:
        """Nobody waits for it any more: the late rest of its answer is no event."""
        if self.responses.pop(action.id, None) is not None:
            self._abandoned.append(action.id)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.close()
        if self.factory is not None:
            self.factory.connection_lost(exc)

    def close(self) -> None:
        """Close; every action that still waits fails, none is kept for later."""
        self.closed = True
        pending, self.responses = self.responses, {}
        for action in pending.values():
            if not action.future.done():
                action.future.set_exception(AmiError(f"AMI {action['action']}: the connection was lost"))
                # Its caller may have gone already; an unread error is no news.
                action.future.exception()
        self.transport.close()


class Connection(Manager):
    """One connection to the manager interface, not logged in.

    :param on_event: called with every event that is no part of an answer; must not raise
    """

    pinger: asyncio.TimerHandle | None

    def __init__(self, host: str, port: int, on_event: Callable[[AmiEvent], None]) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(host=host, port=port, loop=loop, protocol_factory=Wire, forgetable_actions=(), log=_silent)
        self.lost: asyncio.Future[str] = loop.create_future()
        self._on_event = on_event

    async def open(self) -> None:
        """Connect.

        :raises OSError: nobody listens
        """
        await self.connect()

    def connection_made(self, f: asyncio.Task[Any]) -> None:
        if f.cancelled() or f.exception() is not None:
            return  # open() raises it
        super().connection_made(f)
        if self.pinger is not None:
            self.pinger.cancel()
            self.pinger = None

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self.lost.done():
            self.lost.set_result(str(exc) if exc else "closed by Asterisk")

    def dispatch(self, event: Message) -> list[str]:
        self._on_event(_event(event))
        return []

    async def ask(self, name: str, fields: dict[str, Any], timeout: float) -> AmiResponse:
        """Send an action and wait for its whole answer.

        :param timeout: seconds
        :raises AmiError: no answer in time, connection lost, a line break in a value
        """
        action = ListAction({"Action": name, **fields_of(fields)})
        try:
            async with asyncio.timeout(timeout):
                messages = await self.protocol.send(action)
        except TimeoutError:
            raise AmiError(f"AMI {name}: no answer from Asterisk within {timeout:g} s") from None
        finally:
            self.protocol.forget(action)
        head = _headers(messages[0])
        return AmiResponse(
            ok=head.get("Response") in ("Success", "Follows", "Goodbye"),
            message=head.get("Message", ""),
            fields=head,
            events=tuple(_event(message) for message in messages[1:]),
        )


def _event(message: Message) -> AmiEvent:
    return AmiEvent(message.get("Event", ""), _headers(message))


def _headers(message: Message) -> Headers:
    # panoramisk adds a header "content" of its own.
    return Headers({name: value for name, value in message.items() if name != "content"})
