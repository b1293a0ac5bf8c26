"""What Asterisk says, in the core's words. Pure: one event in, one event (or none) and the call's channel out."""

from __future__ import annotations

from collections.abc import Mapping

from callrouter.asterisk import ari_events as ari
from callrouter.core import events as e
from callrouter.core.phone import clean_name, normalize_caller, normalize_dialled
from callrouter.core.routing import SIMULATOR_TRUNK
from callrouter.core.state import BACKUP_LEG, Calling, HandedOver, Leaving, Session

INCOMING = "incoming"
DIALED = "dialed"
DID_VARIABLE = "CR_DID"
TRUNK_VARIABLE = "CR_TRUNK"
LEG_VARIABLE = "CR_LEG"


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
    trunk = str(channel.channelvars.get(TRUNK_VARIABLE) or "") or None
    dialled = str(channel.channelvars.get(DID_VARIABLE) or "") or channel.dialplan.exten
    country = countries.get(trunk or "", default_country)
    return e.CallArrived(
        at=float(event.timestamp),
        call_id=call_id,
        channel=channel.id,
        did=normalize_dialled(dialled, country),
        caller=normalize_caller(channel.caller.number, country),
        caller_name=clean_name(channel.caller.name),
        trunk=trunk,
        linkedid=channel.id,
        test=trunk == SIMULATOR_TRUNK,
        store_problem=store_problem,
        trunks_down=trunks_down,
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


def translate(event: ari.AriEvent, session: Session) -> e.Event | None:
    """An event of a call under way, or None when it says nothing to the core."""
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
    leg_id = _leg_id(event, session)
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
        case ari.ChannelHold():
            return e.LegHeld(float(event.timestamp), leg_id, on=True)
        case ari.ChannelUnhold():
            return e.LegHeld(float(event.timestamp), leg_id, on=False)
    return None


def _leg_id(event: ari.AriEvent, session: Session) -> str:
    """The leg that an event is about: ours, or the one the failsafe named on the caller's channel."""
    named = ""
    if isinstance(event, ari.Dial) and event.caller is not None:
        named = str(event.caller.channelvars.get(LEG_VARIABLE) or "")
    match session.wait:
        case Calling(leg_id=leg_id):
            return named if named.startswith(BACKUP_LEG) else leg_id
        case HandedOver(leg_id=leg_id):
            return named if isinstance(event, ari.Dial) and event.caller is not None else leg_id
    return ""
