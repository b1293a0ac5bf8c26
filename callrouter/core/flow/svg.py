"""A flow as a picture: boxes in columns from left to right, each exit named inside its box, lines to where it goes.

The layout is the layered one of Sugiyama, Tagawa and Toda (1981): circles are opened, nodes get a column by their
longest way from the start, lines over several columns get a place in each, and columns are sorted and moved so that
lines cross little and run straight.
"""

from __future__ import annotations

import itertools
import textwrap
from dataclasses import dataclass, field
from html import escape

from callrouter.core.flow import nodes as n
from callrouter.core.flow.draw import summary

BOX = 248
GAP = 84
LINE = 17
PAD = 10
BETWEEN = 26
MARGIN = 24
SWEEPS = 8
COLOURS: dict[type, str] = {
    n.Play: "#5b7fb4",
    n.Menu: "#7a5bb4",
    n.Gather: "#a85b93",
    n.Consent: "#4f7d6a",
    n.Dial: "#3f8f5f",
    n.Hours: "#b4833a",
    n.Split: "#a06a3a",
    n.Geo: "#6f8f3f",
    n.Caller: "#a3742c",
    n.Voicemail: "#3a94a0",
    n.Tag: "#8a8f98",
    n.Set: "#7d8496",
    n.GotoFlow: "#565f9c",
    n.Webhook: "#5f7a8f",
    n.Hangup: "#b4524c",
}


@dataclass(slots=True, eq=False)
class _Item:
    """A box, or the place where a long line crosses a column."""

    name: str
    height: float
    column: int = 0
    y: float = 0.0
    text: tuple[str, ...] = ()
    exits: tuple[tuple[str, str | None], ...] = ()
    before: list[_Item] = field(default_factory=list)
    after: list[_Item] = field(default_factory=list)
    box: bool = True

    @property
    def middle(self) -> float:
        return self.y + self.height / 2

    def exit_y(self, to: str) -> float:
        """Where the line to ``to`` leaves the box."""
        at = next(i for i, (_, target) in enumerate(self.exits) if target == to)
        return self.y + self.height - PAD / 2 - (len(self.exits) - at - 0.5) * LINE


def as_svg(flow: n.Flow) -> str:
    """The flow as an SVG document, complete in itself."""
    items = {name: _item(name, node) for name, node in flow.nodes.items()}
    back = _back_edges(flow)
    _columns(flow, items, back)
    columns, ways = _with_crossings(items, back)
    _sort(columns)
    _settle(columns)
    return _drawn(flow, items, columns, ways, sorted(back))


def _item(name: str, node: n.Node) -> _Item:
    grouped: dict[str | None, list[str]] = {}
    for outcome, to in n.exits(node):
        grouped.setdefault(to, []).append(outcome)
    rows: list[tuple[str, str | None]] = []
    for to, outcomes in grouped.items():
        label = ", ".join(outcomes)
        rows.append((f"{label} → hang up" if to is None else label, to))
    text = tuple(textwrap.wrap(summary(node), 33, max_lines=3, placeholder=" …") or [""])
    height = PAD * 2 + LINE * (1 + len(text) + len(rows)) + (PAD if rows else 0)
    return _Item(name, height, text=text, exits=tuple(rows))


def _targets(node: n.Node) -> list[str]:
    return list(dict.fromkeys(to for _, to in n.exits(node) if to is not None))


def _back_edges(flow: n.Flow) -> set[tuple[str, str]]:
    """Lines that close a circle, by depth-first search from the start, without recursion."""
    back: set[tuple[str, str]] = set()
    state: dict[str, int] = {}
    for root in [flow.start, *flow.nodes]:
        stack = [(root, iter(_targets(flow.nodes[root])))] if root not in state else []
        state.setdefault(root, 1)
        while stack:
            name, rest = stack[-1]
            to = next(rest, None)
            if to is None:
                state[name] = 2
                stack.pop()
            elif state.get(to) == 1:
                back.add((name, to))
            elif to not in state:
                state[to] = 1
                stack.append((to, iter(_targets(flow.nodes[to]))))
    return back


def _columns(flow: n.Flow, items: dict[str, _Item], back: set[tuple[str, str]]) -> None:
    """Each node one column right of the last one that leads to it."""
    moved = True
    while moved:  # ends: without the back edges there are no circles
        moved = False
        for name, node in flow.nodes.items():
            for to in _targets(node):
                if (name, to) not in back and items[to].column <= items[name].column:
                    items[to].column = items[name].column + 1
                    moved = True


def _with_crossings(
    items: dict[str, _Item], back: set[tuple[str, str]]
) -> tuple[list[list[_Item]], dict[tuple[str, str], list[_Item]]]:
    """Columns of boxes and crossings, and the way of each line through them."""
    columns: list[list[_Item]] = [[] for _ in range(1 + max(item.column for item in items.values()))]
    for item in items.values():
        columns[item.column].append(item)
    ways: dict[tuple[str, str], list[_Item]] = {}
    for name, item in items.items():
        for to in (target for _, target in item.exits if target is not None):
            if (name, to) in back:
                continue
            way = [item]
            for column in range(item.column + 1, items[to].column):
                crossing = _Item(f"{name}→{to}", LINE, column, box=False)
                columns[column].append(crossing)
                way.append(crossing)
            way.append(items[to])
            for left, right in itertools.pairwise(way):
                left.after.append(right)
                right.before.append(left)
            ways[name, to] = way
    return columns, ways


def _sort(columns: list[list[_Item]]) -> None:
    """Order within columns: each item near the mean place of its neighbours, sweeping right and left."""
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        for column in columns[1:] if forward else reversed(columns[:-1]):
            place = {id(item): at for each in columns for at, item in enumerate(each)}

            def mean(item: _Item, forward: bool = forward, place: dict[int, int] = place) -> float:
                # A line's neighbour counts with the exit it leaves by, so that lines leave in the order of the exits.
                near = item.before if forward else item.after
                spots = [place[id(other)] + (_exit_share(other, item) if forward else 0.0) for other in near]
                return sum(spots) / len(spots) if spots else float(place[id(item)])

            column.sort(key=mean)


def _exit_share(source: _Item, item: _Item) -> float:
    if not source.exits:
        return 0.5
    for at, (_, to) in enumerate(source.exits):
        if to == item.name or (to is not None and item.name == f"{source.name}→{to}"):
            return at / len(source.exits)
    return 0.5


def _settle(columns: list[list[_Item]]) -> None:
    """Heights: stacked first, then drawn towards the neighbours as far as order and distance allow."""
    for column in columns:
        y = 0.0
        for item in column:
            item.y = y
            y += item.height + BETWEEN
    for sweep in range(SWEEPS * 2):
        forward = sweep % 2 == 0
        for column in columns[1:] if forward else reversed(columns[:-1]):
            for item in column:
                near = item.before if forward else item.after
                if near:
                    item.y = sum(other.middle for other in near) / len(near) - item.height / 2
            _part(column)
    top = min(item.y for column in columns for item in column)
    for column in columns:
        for item in column:
            item.y -= top


def _part(column: list[_Item]) -> None:
    """Push overlapping neighbours apart, both the same way, until none overlap."""
    for _ in range(len(column) * 2):
        moved = False
        for above, below in itertools.pairwise(column):
            overlap = above.y + above.height + BETWEEN - below.y
            if overlap > 0.5:
                above.y -= overlap / 2
                below.y += overlap / 2
                moved = True
        if not moved:
            return
    for above, below in itertools.pairwise(column):
        below.y = max(below.y, above.y + above.height + BETWEEN)


def _drawn(
    flow: n.Flow,
    items: dict[str, _Item],
    columns: list[list[_Item]],
    ways: dict[tuple[str, str], list[_Item]],
    back: list[tuple[str, str]],
) -> str:
    top = MARGIN + 34
    bottom = max(item.y + item.height for item in items.values()) + top
    width = MARGIN * 2 + len(columns) * BOX + (len(columns) - 1) * GAP + (40 if back else 0)
    height = bottom + 14 * len(back) + MARGIN
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" width="{width}" '
            f'height="{height:.0f}" font-family="system-ui, sans-serif" font-size="12">'
        ),
        f"<title>{_text(flow.title or flow.name)}</title>",
        (
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
            'orient="auto-start-reverse"><path d="M0 0 L8 4 L0 8 z" fill="#5a6270"/></marker></defs>'
        ),
        f'<rect width="{width}" height="{height:.0f}" fill="#ffffff"/>',
        (
            f'<text x="{MARGIN}" y="{MARGIN + 8}" font-size="16" font-weight="600" fill="#20242b">'
            f"{_text(flow.title or flow.name)}</text>"
        ),
    ]
    for (name, to), way in ways.items():
        lines.append(_line(_curve(items[name], to, way, top)))
    for lane, (name, to) in enumerate(back):
        lines.append(_line(_round_trip(items[name], items[to], bottom + 14 * (lane + 1) - 4, lane, top), dashed=True))
    for name, node in flow.nodes.items():
        lines += _box(items[name], node, top, start=name == flow.start)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _left(column: int) -> float:
    return MARGIN + column * (BOX + GAP)


def _entry_y(item: _Item) -> float:
    return item.y + PAD + LINE / 2 if item.box else item.middle


def _curve(source: _Item, to: str, way: list[_Item], top: float) -> str:
    x, y = _left(source.column) + BOX, source.exit_y(to) + top
    path = f"M{x:.0f} {y:.1f}"
    for item in way[1:]:
        end, level = _left(item.column), _entry_y(item) + top
        bend = (end - x) / 2
        path += f" C{x + bend:.0f} {y:.1f} {end - bend:.0f} {level:.1f} {end:.0f} {level:.1f}"
        x, y = end, level
        if not item.box:
            x = end + BOX
            path += f" L{x:.0f} {y:.1f}"
    return path


def _round_trip(source: _Item, target: _Item, level: float, lane: int, top: float) -> str:
    """A line back: below all boxes, up and down between the columns only."""
    right = _left(source.column) + BOX + 12 + 6 * (lane % 4)
    left = _left(target.column) - 12 - 3 * (lane % 4)
    start, end = source.exit_y(target.name) + top, _entry_y(target) + LINE / 2 + top
    out = f"M{_left(source.column) + BOX:.0f} {start:.1f} H{right:.0f} V{level:.1f}"
    return f"{out} H{left:.0f} V{end:.1f} H{_left(target.column):.0f}"


def _line(path: str, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<path d="{path}" fill="none" stroke="#5a6270" stroke-width="1.3"{dash} marker-end="url(#tip)"/>'


def _box(item: _Item, node: n.Node, top: float, *, start: bool) -> list[str]:
    x, y, colour = _left(item.column), item.y + top, COLOURS[type(node)]
    edge = "2.5" if start else "1"
    lines = [
        (
            f'<g><rect x="{x}" y="{y:.1f}" width="{BOX}" height="{item.height:.1f}" rx="6" fill="#f7f8fa" '
            f'stroke="{colour}" stroke-width="{edge}"/>'
        ),
        f'<rect x="{x}" y="{y:.1f}" width="5" height="{item.height:.1f}" rx="2" fill="{colour}"/>',
    ]
    baseline = y + PAD + LINE - 5
    lines.append(
        f'<text x="{x + 14}" y="{baseline:.1f}" font-weight="600" fill="{colour}">'
        f"{'▶ ' if start else ''}{_text(_cut(item.name, 32))}</text>"
    )
    for row in item.text:
        baseline += LINE
        lines.append(f'<text x="{x + 14}" y="{baseline:.1f}" fill="#20242b">{_text(row)}</text>')
    if item.exits:
        rule = y + item.height - PAD - len(item.exits) * LINE - 1
        lines.append(f'<path d="M{x + 14} {rule:.1f} H{x + BOX - 10}" stroke="#d5d9df" stroke-width="1"/>')
    for at, (label, _) in enumerate(item.exits):
        level = y + item.height - PAD / 2 - (len(item.exits) - at - 0.5) * LINE + 4
        lines.append(
            f'<text x="{x + BOX - 10}" y="{level:.1f}" text-anchor="end" fill="#5a6270">{_text(_cut(label, 34))}</text>'
        )
    return [*lines, "</g>"]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _text(text: str) -> str:
    """Escaped, and without the characters that XML cannot hold at all."""
    kept = "".join(ch if ch.isprintable() or ch == " " else "\ufffd" for ch in text)
    return escape("".join(ch for ch in kept if not 0xD800 <= ord(ch) <= 0xDFFF), quote=True)
