"""Asterisk's configuration syntax: sections, templates, key = value, objects with =>, includes, comments."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from callrouter.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Entry:
    """``key = value`` or ``key => value``."""

    key: str
    value: str
    line: int


@dataclass(slots=True)
class Section:
    name: str
    file: str
    line: int
    template: bool = False
    added: bool = False
    """Written ``[name](+)``: adds to the section of that name."""
    parents: tuple[str, ...] = ()
    entries: list[Entry] = field(default_factory=list)

    def get(self, key: str) -> str | None:
        """The last value of ``key``, as Asterisk takes it."""
        return next((entry.value for entry in reversed(self.entries) if entry.key == key), None)

    def all(self, key: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.key == key]


@dataclass(slots=True)
class ConfFile:
    name: str
    sections: list[Section]
    includes: list[tuple[str, bool, int]]
    """Path, whether it may be absent (``#tryinclude``), line."""

    def named(self, name: str) -> list[Section]:
        return [section for section in self.sections if section.name == name]


_HEAD = re.compile(r"\[(?P<name>[^\[\]]+)\](?:\s*\((?P<options>[^()]*)\))?\s*\Z")
_DIRECTIVE = re.compile(r"#\s*(?P<word>[a-z]+)\s+(?P<what>.+)\Z")


def parse_conf(name: str, text: str) -> ConfFile:
    """Read a file.

    :param name: for messages
    :raises ConfigError: with file, line, and what Asterisk would make of it
    """
    result = ConfFile(name, [], [])
    current: Section | None = None
    comment = False
    for number, raw in enumerate(text.split("\n"), 1):
        line, comment = _strip(raw, comment)
        if not line:
            continue
        if any(not ch.isprintable() and ch != "\t" for ch in line):
            raise _error(name, number, "has control characters", "remove them")
        if line.startswith("["):
            current = _section(name, number, line)
            result.sections.append(current)
        elif line.startswith("#"):
            found = _DIRECTIVE.match(line)
            if not found or found["word"] not in ("include", "tryinclude", "exec"):
                raise _error(name, number, f"{line!r} is no directive", "#include or #tryinclude")
            if found["word"] == "exec":
                raise _error(name, number, "#exec would run a program", "remove it")
            result.includes.append((found["what"].strip().strip('"<>'), found["word"] == "tryinclude", number))
        else:
            key, sign, value = line.partition("=")
            key, value = key.strip(), value.removeprefix(">").strip()
            if not sign or not key:
                raise _error(name, number, f"{line!r} is neither a section nor key = value", "write key = value")
            if current is None:
                raise _error(name, number, f"{key!r} stands before the first [section]", "put it into a section")
            current.entries.append(Entry(key, value, number))
    if comment:
        raise _error(name, text.count("\n") + 1, "a ;-- comment is never closed", "close it with --;")
    _check_templates(result)
    return result


def _section(name: str, number: int, line: str) -> Section:
    found = _HEAD.match(line)
    if not found:
        raise _error(name, number, f"{line!r} is no section", "write [name], [name](template) or [name](!)")
    options = [part.strip() for part in (found["options"] or "").split(",") if part.strip()]
    return Section(
        found["name"].strip(),
        name,
        number,
        template="!" in options,
        added="+" in options,
        parents=tuple(option for option in options if option not in "!+"),
    )


def _check_templates(conf: ConfFile) -> None:
    seen: set[str] = set()
    for section in conf.sections:
        for parent in section.parents:
            if parent not in seen:
                raise _error(conf.name, section.line, f"template {parent!r} does not exist above", "define it first")
        if section.added and section.name not in seen and not conf.includes:
            raise _error(
                conf.name, section.line, f"(+) adds to {section.name!r}, which does not exist above", "drop (+)"
            )
        seen.add(section.name)


def _strip(raw: str, comment: bool) -> tuple[str, bool]:
    """A line without its comments: ``;`` to the end, unless ``\\;``, and ``;-- … --;`` over several lines."""
    kept: list[str] = []
    index = 0
    while index < len(raw):
        if comment:
            end = raw.find("--;", index)
            if end < 0:
                return "".join(kept).strip(), True
            comment, index = False, end + 3
        elif raw[index] == "\\" and raw[index + 1 : index + 2] == ";":
            kept.append(";")
            index += 2
        elif raw.startswith(";--", index) and raw[index + 3 : index + 4] != "-":
            comment, index = True, index + 3
        elif raw[index] == ";":
            break
        else:
            kept.append(raw[index])
            index += 1
    return "".join(kept).strip(), comment


def _error(name: str, line: int, what: str, hint: str) -> ConfigError:
    return ConfigError(f"{name}, line {line}: {what}", hint=hint)
