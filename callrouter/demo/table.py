"""What the calls came to, as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from callrouter.core.phone import pretty

if TYPE_CHECKING:
    from callrouter.store.calls import CallRow


def call_table(calls: Sequence[CallRow]) -> Table:
    """One row a call, oldest first."""
    table = Table(title="Calls", show_lines=True, title_justify="left")
    for name, more in (
        ("Caller → number", {}),
        ("Campaign", {}),
        ("Path", {}),
        ("Answered by", {}),
        ("Ring/talk s", {"justify": "right"}),
        ("Disposition", {}),
        ("Recording (dBFS caller / business)", {"overflow": "fold", "min_width": 25}),
    ):
        table.add_column(name, **more)
    for call in sorted(calls, key=lambda row: row.started_at):
        table.add_row(
            Text(f"{pretty(call.caller or 'withheld')}\n{call.caller_name or ''}\n→ {pretty(call.did)}"),
            Text(call.campaign or "-"),
            Text(" → ".join(call.path)),
            Text(call.answered_by or "-"),
            f"{call.ring_seconds:.1f}/{call.talk_seconds:.1f}",
            Text(f"{call.disposition}\n{call.reason}"),
            Text(_recordings(call)),
        )
    return table


def _recordings(call: CallRow) -> str:
    if not call.recordings:
        return call.recording_problem or "-"
    lines = []
    for recording in call.recordings:
        level = " / ".join(f"{value:.0f}" for value in (recording.left_dbfs, recording.right_dbfs) if value is not None)
        lines.append(f"{recording.path or recording.status}\n{level} {recording.problem or ''}".strip())
    return "\n".join(lines)
