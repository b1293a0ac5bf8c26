"""A simulated SIP carrier with business phones, for tests, the demo and ``callrouter call test``.

A second, private Asterisk plays both: it places calls to the server under test and answers the calls that server
makes to its phones, with real SIP and RTP from a loopback address of its own::

    async with SimulatedCarrier(install, directory, server=("127.0.0.1", 5060)) as carrier:
        await carrier.add_phone(Phone("front-desk", answer(after=1, speak="tone:660")))
        result = await carrier.place(CallScript(did="+12125550100", steps=(Wait(2), Digits("1"), UntilHangup())))
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from callrouter.errors import AmiError, AsteriskError, ConflictError, InputError, NotFoundError
from callrouter.testing import speech
from callrouter.testing.carrier_conf import MANAGER_USER, CarrierLayout, CarrierPlan, CarrierTls, render
from callrouter.testing.carrier_control import CarrierControl, Message, escaped
from callrouter.testing.carrier_legs import CallResult, Leg, PhoneCall
from callrouter.testing.carrier_script import CallScript, Phone, checked_headers, joined, tone_hz

if TYPE_CHECKING:
    from callrouter.asterisk.install import AsteriskInstall
    from callrouter.asterisk.process import AsteriskProcess

CALLER_SENTENCE = "Hello, I saw your advertisement and I would like to make an appointment for next week, please."
PHONE_SENTENCE = "Good afternoon, thank you for calling. This is the front desk speaking. How can I help you today?"


class SimulatedCarrier:
    """A carrier and its phones on one loopback address.

    :param install: the Asterisk to run
    :param directory: everything it writes goes below; made when absent
    :param address: its address; the server knows its calls by it
    :param sip_port: None: a free one, see ``sip_port`` after ``start``
    :param rtp: first and last UDP port for audio; None: a range of 2,000
    :param server: host and port of the server that gets the calls; may be changed by ``aim``
    :param phones: phones that are there from the start
    :param accounts: SIP user name → password of those who may register with it
    :param tls: None: SIP over UDP only; else see ``tls_port`` after ``start``
    """

    def __init__(
        self,
        install: AsteriskInstall,
        directory: Path,
        *,
        address: str = "127.0.0.9",
        sip_port: int | None = None,
        rtp: tuple[int, int] | None = None,
        server: tuple[str, int] = ("127.0.0.1", 5060),
        name: str = "carrier",
        phones: Iterable[Phone] = (),
        accounts: Mapping[str, str] | None = None,
        tls: CarrierTls | None = None,
    ) -> None:
        if not address.startswith("127."):
            raise InputError(f"{address}: a simulated carrier stays on loopback", hint="an address in 127.0.0.0/8")
        self.name = name
        self.address = address
        self.server = server
        self.sip_port = sip_port or 0
        self.tls_port = 0
        self._accounts = dict(accounts or {})
        self._tls = tls
        self._install = install
        self._directory = directory.absolute()
        self._rtp = rtp
        self._phones = {phone.name: phone for phone in phones}
        self._legs: dict[str, Leg] = {}
        self._control = CarrierControl(self._on_event, self._on_lost)
        self._process: AsteriskProcess | None = None
        self._layout: CarrierLayout | None = None
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lost = False

    # -- life ------------------------------------------------------------------------------------------------------

    async def start(self, timeout: float = 30.0) -> None:
        """Start the carrier; ready to place and take calls on return.

        :param timeout: seconds
        :raises AsteriskError: its Asterisk does not start; the message names the log
        :raises ConflictError: the given SIP port is taken
        :raises ServiceError: espeak-ng is absent
        """
        if self._process is not None:
            raise AsteriskError(f"simulated carrier {self.name} runs already")
        self._lost = False
        self._layout = layout = CarrierLayout(self._directory, self._run_directory())
        wanted = self.sip_port
        for attempt in (1, 2, 3):
            # A free port may be taken by somebody else before Asterisk binds it: then others are chosen.
            self.sip_port = wanted or _free_port(self.address, socket.SOCK_DGRAM)
            try:
                await self._start_on(layout, timeout)
                return
            except ConflictError as exc:
                await self.stop()
                if wanted or attempt == 3:
                    where = f"simulated carrier on {self.address}:{self.sip_port}"
                    raise ConflictError(f"{where}: {exc.message}", hint=exc.hint) from exc
            except BaseException:
                await self.stop()
                raise

    async def _start_on(self, layout: CarrierLayout, timeout: float) -> None:
        from callrouter.asterisk.process import AsteriskProcess

        if self._tls is not None:
            self.tls_port = self.tls_port or _free_port(self.address, socket.SOCK_STREAM)
        if self._tls is not None:
            self.tls_port = self.tls_port or _free_port(self.address, socket.SOCK_STREAM)
        plan = CarrierPlan(
            name=self.name,
            address=self.address,
            sip_port=self.sip_port,
            manager_port=_free_port(self.address, socket.SOCK_STREAM),
            rtp=self._rtp or _rtp_range(),
            accounts=self._accounts,
            tls=self._tls,
            tls_port=self.tls_port,
        )
        secret = secrets.token_urlsafe(24)
        await asyncio.to_thread(self._make_voices, layout)
        render(plan, layout, modules_dir=self._install.modules_dir, data_dir=self._install.data_dir, secret=secret)
        self._process = AsteriskProcess(self._install, layout.conf, layout.log)
        await self._process.start(timeout)
        await self._control.connect(self.address, plan.manager_port, MANAGER_USER, secret, timeout=timeout)
        for phone in self._phones.values():
            await self._publish(phone)

    async def stop(self) -> None:
        """Hang up all calls and end the carrier's Asterisk. Recordings stay. Harmless when not running."""
        try:
            if self._process is not None and not self._lost:
                with contextlib.suppress(AmiError, TimeoutError):
                    await self._hang_up_all()
            await self._control.close()
        finally:
            process, self._process = self._process, None
            if process is not None:
                await process.stop()
            if self._layout is not None and not self._layout.run.is_relative_to(self._directory):
                shutil.rmtree(self._layout.run, ignore_errors=True)

    async def __aenter__(self) -> SimulatedCarrier:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def pid(self) -> int | None:
        """Process id of the carrier's Asterisk while it runs."""
        return self._process.pid if self._process is not None else None

    @property
    def log(self) -> Path:
        """Where the carrier's Asterisk writes what went wrong."""
        return self._directory / "log" / "carrier.log"

    # -- calls -----------------------------------------------------------------------------------------------------

    async def place(self, script: CallScript) -> CallResult:
        """Place one call and stay until it is over; as many at once as you like.

        A cancelled task hangs its call up.

        :raises InputError: a script that cannot be dialled (odd header, too many steps)
        :raises AsteriskError: the carrier is not running, or stopped during the call
        """
        layout = self._running()
        programme = await asyncio.to_thread(script.programme, self._sound)
        leg = Leg(f"cc-{secrets.token_hex(8)}", placed=True)
        now = time.time()
        patience = script.patience
        host, port = self.server
        variables = {
            "LEG_ID": leg.call_id,
            "LEG_PROGRAMME": programme,
            "LEG_LIMIT": f"{script.max_seconds:.3f}",
            "CHANNEL(hangup_handler_push)": "ended,s,1",
        }
        headers = checked_headers(script.headers)
        if not script.caller_id:
            headers.setdefault("Privacy", "id")
        endpoint = "server" if script.caller_id else "withheld"
        over = ";transport=tls" if self._tls is not None else ""
        over = ";transport=tls" if self._tls is not None else ""
        caller_id = script.caller_id or '"Anonymous" <anonymous>'
        fields = [
            ("Channel", f"PJSIP/{endpoint}/sip:{script.user}@{host}:{port}{over}"),
            ("ChannelId", leg.call_id),
            ("Context", "caller"),
            ("Exten", "s"),
            ("Priority", "1"),
            ("CallerID", caller_id),
            ("Timeout", str(round(patience * 1000))),
            ("Async", "true"),
            *(("Variable", f"{name}={escaped(value)}") for name, value in variables.items()),
            *(("Variable", f"PJSIP_HEADER(add,{name})={escaped(value)}") for name, value in headers.items()),
        ]
        self._legs[leg.call_id] = leg
        try:
            await self._control.action("Originate", fields)
            await leg.over.wait()
        except asyncio.CancelledError:
            await self._drop(leg)
            raise
        except BaseException:
            self._legs.pop(leg.call_id, None)
            raise
        if self._lost and leg.ended is None:
            raise AsteriskError(f"simulated carrier {self.name} ended during a call", hint=f"see {self.log}")
        await leg.recordings_closed(layout.heard)
        return leg.result(script.did, script.caller, layout.heard, now)

    async def place_all(self, scripts: Iterable[CallScript], *, per_second: float | None = None) -> list[CallResult]:
        """Place many calls, all at once or ``per_second``; results in the order of the scripts.

        :raises CallrouterError: as ``place``; the other calls are then hung up
        """
        loop = asyncio.get_running_loop()
        begin = loop.time()

        async def one(number: int, script: CallScript) -> CallResult:
            if per_second:
                await asyncio.sleep(max(0.0, begin + number / per_second - loop.time()))
            return await self.place(script)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(number, script)) for number, script in enumerate(scripts)]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        return [task.result() for task in tasks]

    async def active_channels(self) -> int:
        """Channels that the carrier's Asterisk has open; 0 when all calls are over."""
        response = await self._control.action("Command", [("Command", "core show channels count")])
        first = response.get("Output", "").strip().split(" ", 1)[0]
        if not first.isdigit():
            raise AmiError(f"simulated carrier: cannot read channel count from {response.get('Output', '')!r}")
        return int(first)

    def aim(self, host: str, port: int) -> None:
        """Send calls placed from now on to another server."""
        self.server = (host, port)

    # -- phones ----------------------------------------------------------------------------------------------------

    async def add_phone(self, phone: Phone) -> str:
        """Add a phone, or change its behaviour, for calls from now on, running or not; returns its SIP URI."""
        self._phones[phone.name] = phone
        if self._process is not None:
            await self._publish(phone)
        return self.uri(phone.name)

    def uri(self, name: str) -> str:
        """``sip:NAME@ADDRESS:PORT`` of a phone.

        :raises NotFoundError: no such phone
        :raises AsteriskError: the port is not chosen yet: start the carrier, or give ``sip_port``
        """
        if name not in self._phones:
            raise NotFoundError(f"simulated carrier {self.name} has no phone {name!r}", hint="add_phone() makes one")
        if not self.sip_port:
            raise AsteriskError("the carrier's SIP port is chosen at its start", hint="start() it, or pass sip_port")
        return f"sip:{name}@{self.address}:{self.sip_port}"

    async def phone_calls(self, name: str | None = None) -> list[PhoneCall]:
        """Calls that reached a phone (None: any), oldest first; those that still last have ``ended=None``."""
        layout = self._layout
        if layout is None:
            return []
        legs = [leg for leg in self._legs.values() if not leg.placed and leg.phone and name in (None, leg.phone)]
        for leg in legs:
            if leg.ended is not None:
                await leg.recordings_closed(layout.heard)
        return [leg.phone_call(layout.heard) for leg in sorted(legs, key=lambda leg: leg.started or 0.0)]

    def forget_calls(self) -> None:
        """Count anew: calls that reached a phone until now are no longer told of."""
        self._legs = {name: leg for name, leg in self._legs.items() if leg.placed}

    async def wait_phone_calls(self, name: str | None, count: int, *, timeout: float = 10.0) -> list[PhoneCall]:
        """Wait until ``count`` calls to a phone are over, and return all its calls.

        :raises TimeoutError: fewer were over after ``timeout`` seconds; says how many
        """
        calls: list[PhoneCall] = []
        try:
            async with asyncio.timeout(timeout):
                while True:
                    changed = self._changed
                    calls = await self.phone_calls(name)
                    if sum(call.ended is not None for call in calls) >= count:
                        return calls
                    await changed.wait()
        except TimeoutError:
            over = sum(call.ended is not None for call in calls)
            raise TimeoutError(
                f"{name or 'phones'}: {over} of {count} calls over after {timeout:g} s, {len(calls) - over} last"
            ) from None

    # -- inside ----------------------------------------------------------------------------------------------------

    def _running(self) -> CarrierLayout:
        if self._layout is None or self._process is None:
            raise AsteriskError(f"simulated carrier {self.name} is not running", hint="await carrier.start() first")
        return self._layout

    async def _publish(self, phone: Phone) -> None:
        programme = joined(phone.behaviour.verbs)
        await self._control.action("Setvar", [("Variable", f"PHONE_{phone.name}"), ("Value", programme)])

    async def _hang_up_all(self, timeout: float = 5.0) -> None:
        """Send BYE or CANCEL on every leg, so that the server under test is not left with half a call."""
        async with asyncio.timeout(timeout):
            while await self.active_channels():
                await self._control.action("Hangup", [("Channel", "/^.*$/"), ("Cause", "16")])
                await asyncio.sleep(0.05)

    async def _record_early(self, leg: Leg) -> None:
        """Keep what a caller hears before the answer, where the dialplan does not run yet."""
        heard = self._running().heard / f"{leg.call_id}-early.wav"
        with contextlib.suppress(AmiError):
            await self._control.action("MixMonitor", [("Channel", leg.channel), ("Options", f"r({heard})")])

    async def _drop(self, leg: Leg) -> None:
        """Hang up a call whose task was cancelled."""
        with contextlib.suppress(AmiError, TimeoutError):
            async with asyncio.timeout(5):
                await leg.known.wait()
                if not leg.over.is_set():
                    await self._control.action("Hangup", [("Channel", leg.channel), ("Cause", "16")])

    def _on_event(self, event: Message) -> None:
        kind = event["Event"]
        if kind == "OriginateResponse":
            leg = self._legs.get(event.get("Uniqueid", ""))
            # Without a channel no Hangup will come.
            if leg is not None and event.get("Response") == "Failure" and not leg.channel:
                leg.failure = f"originate failed, reason {event.get('Reason', '?')}"
                leg.known.set()
                leg.over.set()
            return
        uniqueid = event.get("DestUniqueid" if kind == "DialState" else "Uniqueid", "")
        leg = self._legs.get(uniqueid)
        if leg is None:
            if kind != "Newchannel":
                return
            leg = self._legs[uniqueid] = Leg(uniqueid, placed=False)
        before = leg.progress
        leg.take(event)
        if kind == "Hangup":
            # A new one each time: several may be waiting, and none must miss it.
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()
        elif leg.placed and before is None and leg.progress is not None:
            task = asyncio.get_running_loop().create_task(self._record_early(leg))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _on_lost(self) -> None:
        self._lost = True
        for leg in self._legs.values():
            leg.known.set()
            leg.over.set()

    def _sound(self, what: Path | str, seconds: float | None) -> str:
        """Prepare a sound file for ``Say`` and return its name without extension."""
        layout = self._running()
        hz = tone_hz(what) if isinstance(what, str) else None
        if hz is not None:
            length = 1.0 if seconds is None else seconds
            name = f"tone-{hz}-{round(length * 1000)}"
            if not (layout.sounds / f"{name}.wav").exists():
                speech.write_wav(layout.sounds / f"{name}.wav", speech.tone(hz, length))
            return name
        path = Path(what)
        if not path.is_file():
            raise InputError(f"Say({str(what)!r}): no such file", hint='an audio file, or "tone:440"')
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        name = f"file-{digest}-{'all' if seconds is None else round(seconds * 1000)}"
        if not (layout.sounds / f"{name}.wav").exists():
            samples = speech.read_mono(path)
            speech.write_wav(
                layout.sounds / f"{name}.wav", samples if seconds is None else speech.fitted(samples, seconds)
            )
        return name

    def _make_voices(self, layout: CarrierLayout) -> None:
        """Speech and silence as hold music: played by Asterisk in the background of whatever the leg does."""
        for who, text, voice in (("caller", CALLER_SENTENCE, "en-us"), ("phone", PHONE_SENTENCE, "en-gb")):
            made = speech.spoken(text, layout.sounds, voice=voice)
            place = layout.voices / who / "speech.wav"
            if not place.exists():
                speech.write_wav(place, speech.read_mono(made))
        quiet = layout.voices / "silence" / "silence.wav"
        if not quiet.exists():
            speech.write_wav(quiet, speech.silence(10.0))

    def _run_directory(self) -> Path:
        """Below the carrier's directory when its control socket's path then fits (108 bytes), else a short one."""
        run = self._directory / "run"
        if len(os.fsencode(run / "asterisk.ctl")) < 100:
            return run
        return Path(tempfile.mkdtemp(prefix="callrouter-"))


def _free_port(address: str, kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def _rtp_range() -> tuple[int, int]:
    """Two thousand ports below Linux's ephemeral range, somewhere at random so that two carriers seldom meet."""
    start = 12000 + 2 * secrets.randbelow(9000)
    return start, start + 1999
