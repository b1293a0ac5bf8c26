"""What Asterisk says, in the core's words. Pure: one event in, one event (or none) and the call's channel out."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from callrouter.asterisk import ari_events as ari
from callrouter.core import events as e
from callrouter.core.identity import Sent, identify
from callrouter.core.phone import normalize_dialled
from callrouter.core.routing import SIMULATOR_TRUNK
from callrouter.core.state import BACKUP_LEG, Calling, HandedOver, Leaving, Session

INCOMING = "incoming"
DIALED = "dialed"
DID_VARIABLE = "CR_DID"
TRUNK_VARIABLE = "CR_TRUNK"
LEG_VARIABLE = "CR_LEG"
DIALLED_BY = "PJSIP/"
"""What Asterisk leaves out where it tells a dial string."""
OUT = frozenset({"BUSY", "CONGESTION", "CHANUNAVAIL", "NOANSWER"})
"""Ends of one leg that leave those beside it ringing. A cancelled one ended with them."""
PRIVACY_VARIABLE = "CR_PRIVACY"
DIVERSION_VARIABLE = "CR_DIVERSION"
VERSTAT_VARIABLE = "CR_VERSTAT"


def arrival(
    event: ari.StasisStart,
    call_id: str,
    countries: Mapping[str, str],
    default_country: str,
    store_problem: str | None = None,
    trunks_down: tuple[tuple[str, str], ...] = (),
) -> e.CallArrived:
    """The first event of a call.

    :param countries: trunk name → country assumed for numbers it writes without +
    :param trunks_down: trunks known to be down, each with the reason
    """
    channel = event.channel

    def said(variable: str) -> str:
        return str(channel.channelvars.get(variable) or "")

    trunk = said(TRUNK_VARIABLE) or None
    dialled = said(DID_VARIABLE) or channel.dialplan.exten
    country = countries.get(trunk or "", default_country)
    who = identify(
        Sent(
            number=channel.caller.number,
            name=channel.caller.name,
            privacy=said(PRIVACY_VARIABLE),
            diversion=said(DIVERSION_VARIABLE),
            verstat=said(VERSTAT_VARIABLE),
        ),
        country,
    )
    return e.CallArrived(
        at=float(event.timestamp),
        call_id=call_id,
        channel=channel.id,
        did=normalize_dialled(dialled, country),
        caller=who.number,
        caller_name=who.name,
        trunk=trunk,
        linkedid=channel.id,
        test=trunk == SIMULATOR_TRUNK,
        store_problem=store_problem,
        trunks_down=trunks_down,
        privacy=who.privacy,
        diverted_from=who.diverted_from,
        verstat=who.verstat,
    )


def channel_of(event: ari.AriEvent) -> str | None:
    """The channel an event is about; for Dial the caller's."""
    match event:
        case ari.Dial():
            return event.caller.id if event.caller else None
        case ari.PlaybackFinished():
            return _channel_in(event.playback.target_uri)
        case ari.RecordingFinished() | ari.RecordingFailed():
            return _channel_in(event.recording.target_uri)
        case (
            ari.StasisStart()
            | ari.StasisEnd()
            | ari.ChannelDestroyed()
            | ari.ChannelDtmfReceived()
            | ari.ChannelHold()
            | ari.ChannelUnhold()
            | ari.CallBroadcast()
        ):
            return event.channel.id
    return None


def _channel_in(uri: str) -> str | None:
    kind, _, ident = uri.partition(":")
    return ident if kind == "channel" else None


def branch_of(event: ari.Dial, session: Session, taken: Collection[str]) -> str:
    """Which of several legs that ring at once a channel is that is being dialled; "" when it is none of them.

    :param taken: legs whose channels are known
    """
    wait = session.wait
    if not isinstance(wait, Calling) or _named(event).startswith(BACKUP_LEG):
        return ""
    endpoint = f"{DIALLED_BY}{event.dialstring}"
    found = (each.leg_id for each in wait.branches if each.endpoint == endpoint and each.leg_id not in taken)
    return next(found, "")


def translate(event: ari.AriEvent, session: Session, branch: str = "") -> e.Event | None:
    """An event of a call under way, or None when it says nothing to the core.

    :param branch: the leg that it is about, of those that ring at once
    """
    match event:
        case ari.StasisStart(args=[kind, status, cause, leg_id, *more]) if kind == DIALED:
            return e.DialReturned(
                at=float(event.timestamp),
                leg_id=leg_id,
                status=status,
                cause=int(cause) if cause.isdigit() else 0,
                recording_problem=(more[0] or None) if more else None,
            )
        case ari.ChannelDtmfReceived():
            return e.Digit(float(event.timestamp), event.digit)
        case ari.PlaybackFinished():
            return e.PlaybackEnded(float(event.timestamp), event.playback.id, ok=event.playback.state == "done")
        case ari.RecordingFinished():
            return e.RecordingEnded(float(event.timestamp), event.recording.name, float(event.recording.duration or 0))
        case ari.RecordingFailed():
            return e.RecordingEnded(float(event.timestamp), event.recording.name, 0.0, ok=False)
        case ari.StasisEnd() if not isinstance(session.wait, Calling | HandedOver):
            # We did not send it away, so the caller is gone. ChannelDestroyed comes only to a channel's subscribers,
            # and we are one from the first dial on.
            given = session.wait.cause if isinstance(session.wait, Leaving) else 16
            return e.CallerHungUp(float(event.timestamp), given)
        case ari.ChannelDestroyed():
            return e.CallerHungUp(float(event.timestamp), event.cause)
    leg_id = branch or _leg_id(event, session)
    if not leg_id:
        return None
    match event:
        case ari.Dial(dialstatus=""):
            return e.LegStarted(float(event.timestamp), leg_id, event.peer.id)
        case ari.Dial(dialstatus="RINGING"):
            return e.LegRinging(float(event.timestamp), leg_id)
        case ari.Dial(dialstatus="PROGRESS"):
            return e.LegProgress(float(event.timestamp), leg_id)
        case ari.Dial(dialstatus="ANSWER"):
            return e.LegAnswered(float(event.timestamp), leg_id)
        case ari.Dial() if branch and event.dialstatus in OUT:
            return e.LegEnded(float(event.timestamp), leg_id, event.dialstatus)
        case ari.ChannelHold():
            return e.LegHeld(float(event.timestamp), leg_id, on=True)
        case ari.ChannelUnhold():
            return e.LegHeld(float(event.timestamp), leg_id, on=False)
    return None


def _named(event: ari.Dial) -> str:
    return str(event.caller.channelvars.get(LEG_VARIABLE) or "") if event.caller is not None else ""


def _leg_id(event: ari.AriEvent, session: Session) -> str:
    """The leg that an event is about: ours, or the one the failsafe named on the caller's channel."""
    named = _named(event) if isinstance(event, ari.Dial) else ""
    match session.wait:
        case Calling() as wait:
            return named if named.startswith(BACKUP_LEG) else wait.talking
        case HandedOver(leg_id=leg_id):
            return named if isinstance(event, ari.Dial) and event.caller is not None else leg_id
    return ""
