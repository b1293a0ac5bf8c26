"""A carrier's list of calls, as CSV: which column is which, and how times, numbers and durations are written."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from callrouter.core.phone import normalize_caller, normalize_dialled
from callrouter.core.reconcile import CarrierCall
from callrouter.errors import InputError

NEEDED = ("did", "start", "seconds")
FIELDS = (*NEEDED, "caller", "call_id")
USUAL: dict[str, tuple[str, ...]] = {
    "did": ("did", "to", "called", "called number", "destination", "callee"),
    "caller": ("caller", "from", "calling", "calling number", "source", "ani"),
    "start": ("start", "start time", "started", "starttime", "date", "call start", "time"),
    "seconds": ("seconds", "duration", "billsec", "billable seconds", "billed seconds", "duration (s)"),
    "call_id": ("call_id", "call-id", "callid", "sip call-id", "sip_call_id"),
}
"""Names that columns usually have; taken where none is given."""
SHOWN = 10
"""So many lines that cannot be read are named."""


@dataclass(frozen=True, slots=True)
class CarrierFormat:
    """How one carrier writes its list.

    :param columns: field (did, caller, start, seconds, call_id) → the column's name
    :param zone: of times that are written without one
    :param time_format: as :meth:`datetime.strptime` takes it; empty: ISO 8601, or seconds since the epoch
    :param country: ISO 3166 alpha-2, assumed for numbers without +
    """

    columns: Mapping[str, str]
    zone: tzinfo = UTC
    time_format: str = ""
    country: str = "US"


def read_carrier_list(lines: Iterable[str], form: CarrierFormat) -> tuple[CarrierCall, ...]:
    """All calls of a list; the first line names the columns.

    :raises InputError: a column is missing, or lines cannot be read: it names them
    """
    text = iter(lines)
    head = next(text, "").lstrip("\ufeff")
    separator = max(",;\t|", key=head.count)
    reader = csv.reader([head], delimiter=separator)
    names = [name.strip() for name in next(reader, [])]
    places = _places(names, form.columns)
    calls, wrong = [], []
    rows = csv.reader(text, delimiter=separator)
    try:
        for cells in rows:
            if not any(cell.strip() for cell in cells):
                continue
            number = rows.line_num + 1
            try:
                calls.append(_call(number, cells, places, form))
            except (InputError, ValueError) as exc:
                wrong.append(f"line {number}: {exc}")
    except csv.Error as exc:
        wrong.append(f"line {rows.line_num + 1}: {exc}")
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise InputError(
            f"the carrier's list cannot be read: {'; '.join(wrong[:SHOWN])}{more}",
            hint="tell how it is written with --columns, --zone, --time-format, --country",
        )
    return tuple(calls)


def _places(names: list[str], given: Mapping[str, str]) -> dict[str, int]:
    unknown = sorted(set(given) - set(FIELDS))
    if unknown:
        raise InputError(f"there is no field {', '.join(unknown)}", hint=f"fields are {', '.join(FIELDS)}")
    lower = [name.lower() for name in names]
    places: dict[str, int] = {}
    for what in FIELDS:
        wanted = (given[what].lower(),) if what in given else USUAL[what]
        place = next((lower.index(name) for name in wanted if name in lower), None)
        if place is not None:
            places[what] = place
        elif what in given or what in NEEDED:
            shown = ", ".join(names) or "none"
            raise InputError(
                f"the carrier's list has no column for {what}; its columns are {shown}",
                hint=f"give it with --columns {what}=NAME",
            )
    return places


def _call(number: int, cells: list[str], places: Mapping[str, int], form: CarrierFormat) -> CarrierCall:
    def cell(what: str) -> str:
        place = places.get(what)
        if place is None:
            return ""
        if place >= len(cells):
            raise InputError(f"it has {len(cells)} columns, too few for {what}")
        return cells[place].strip()

    did = normalize_dialled(cell("did"), form.country)
    if not did:
        raise InputError(f"{cell('did')!r} is no number")
    return CarrierCall(
        line=number,
        did=did,
        caller=normalize_caller(cell("caller"), form.country),
        start=_moment(cell("start"), form),
        seconds=_seconds(cell("seconds")),
        sip_call_id=cell("call_id"),
    )


def _moment(text: str, form: CarrierFormat) -> float:
    try:
        if form.time_format:
            at = datetime.strptime(text, form.time_format)  # noqa: DTZ007 - its zone is given below
        elif text.replace(".", "", 1).isdigit():
            return float(text)
        else:
            at = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"{text!r} is no time") from None
    return (at if at.tzinfo is not None else at.replace(tzinfo=form.zone)).timestamp()


def _seconds(text: str) -> float:
    """ "90", "90.5", "1:30" or "0:01:30"."""
    try:
        total = 0.0
        for part in text.split(":"):
            total = total * 60 + float(part)
    except ValueError:
        raise InputError(f"{text!r} is no duration") from None
    if not 0 <= total < 10**7:
        raise InputError(f"{text!r} is no duration")
    return total
