"""Checks of a rendered configuration that Asterisk itself would only make in its log, or never."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_network

from callrouter.asterisk.conffile import ConfFile, Section, parse_conf
from callrouter.errors import ConfigError

_PJSIP_ONCE = ("endpoint", "aor", "auth", "identify", "registration", "transport", "global", "system")


def validate(files: Mapping[str, str]) -> None:
    """
    :param files: relative path → text of a whole configuration directory
    :raises ConfigError: names file, line and what to do
    """
    parsed = {name: parse_conf(name, text) for name, text in files.items()}
    for conf in parsed.values():
        for target, optional, line in conf.includes:
            if not optional and not target.startswith("/") and target not in parsed:
                raise _error(
                    conf.name, line, f"#include {target}: there is no such file", "render it, or use #tryinclude"
                )
    for name in ("ari.conf", "manager.conf", "http.conf", "rtp.conf", "cdr.conf", "cel.conf", "asterisk.conf"):
        if name in parsed:
            _no_duplicates(parsed[name])
    if "pjsip.conf" in parsed:
        check_pjsip(_with_includes(parsed, "pjsip.conf"))
    if "extensions.conf" in parsed:
        sections = _with_includes(parsed, "extensions.conf")
        check_dialplan(sections)
        if "pjsip.conf" in parsed:
            contexts = {section.name for section in sections}
            for endpoint in _of_type(_with_includes(parsed, "pjsip.conf"), "endpoint"):
                context = endpoint.get("context") or "default"
                if context not in contexts:
                    raise _at(endpoint, f"context {context!r} is not in the dialplan", "add it to extensions.conf")


def check_pjsip(sections: Iterable[Section]) -> None:
    """Endpoints have what they name, trunks are known by address alone, and nobody is let in anonymously."""
    sections = list(sections)
    kinds: dict[str, dict[str, Section]] = {}
    for section in sections:
        if section.template:
            continue
        kind = section.get("type")
        if kind is None:
            raise _at(section, "has no type", "add type = …")
        if kind in _PJSIP_ONCE and section.name in kinds.setdefault(kind, {}):
            raise _at(section, f"a second {kind} called {section.name!r}", "remove one of them")
        kinds.setdefault(kind, {})[section.name] = section
    endpoints = kinds.get("endpoint", {})
    for endpoint in endpoints.values():
        if endpoint.name.lower() == "anonymous":
            raise _at(endpoint, "an endpoint called anonymous lets everybody in", "remove it")
        if endpoint.get("identify_by") != "ip":
            raise _at(endpoint, "can be impersonated by its From header", "add identify_by = ip")
        if endpoint.get("allow_subscribe") != "no":
            raise _at(endpoint, "accepts subscriptions", "add allow_subscribe = no")
        for key, kind in (("aors", "aor"), ("outbound_auth", "auth"), ("auth", "auth"), ("transport", "transport")):
            for name in filter(None, (part.strip() for part in (endpoint.get(key) or "").split(","))):
                if name not in kinds.get(kind, {}):
                    raise _at(endpoint, f"{key} = {name}: there is no such {kind}", f"add [{name}] with type = {kind}")
        known = [s for s in kinds.get("identify", {}).values() if s.get("endpoint") == endpoint.name]
        if endpoint.name.startswith("trunk-") and not known:
            raise _at(
                endpoint, "nothing identifies it: its calls would be refused", "add an identify with match = ADDRESS"
            )
    for identify in kinds.get("identify", {}).values():
        if identify.get("endpoint") not in endpoints:
            raise _at(identify, f"endpoint {identify.get('endpoint')!r} does not exist", "name an endpoint")
        matches = identify.all("match")
        if not matches:
            raise _at(identify, "matches nothing", "add match = ADDRESS")
        for match in matches:
            if not _is_match(match.value):
                raise _error(
                    identify.file, match.line, f"match = {match.value}: no address, network or host name", "mend it"
                )
    for registration in kinds.get("registration", {}).values():
        name = registration.get("outbound_auth") or ""
        if name and name not in kinds.get("auth", {}):
            raise _at(registration, f"outbound_auth = {name}: there is no such auth", f"add [{name}] with type = auth")


def check_dialplan(sections: Iterable[Section]) -> None:
    """Priorities are unique, labels exist, and jumps go to contexts that are there."""
    contexts: dict[str, _Context] = {}
    jumps: list[tuple[Section, int, str, str]] = []
    for section in sections:
        if section.name in ("general", "globals"):
            continue
        context = contexts.setdefault(section.name, _Context())
        extension, priority = "", 0
        for entry in section.entries:
            if entry.key not in ("exten", "same", "include", "hint", "switch", "ignorepat"):
                raise _error(section.file, entry.line, f"{entry.key!r} is no dialplan word", "exten or same")
            if entry.key not in ("exten", "same"):
                continue
            value = entry.value
            if entry.key == "exten":
                extension, _, value = value.partition(",")
                priority = 0
            elif not extension:
                raise _error(section.file, entry.line, "same stands before any exten", "begin with exten => …")
            found = re.match(r"\s*(n|\d+)(?:\+\d+)?(?:\(([\w-]+)\))?\s*,(.*)\Z", value)
            if not found:
                raise _error(section.file, entry.line, "is not priority,application", "exten => s,1,NoOp()")
            if found[1] == "n" and priority == 0:
                raise _error(section.file, entry.line, "begins with priority n", "begin with 1")
            priority = priority + 1 if found[1] == "n" else int(found[1])
            if (extension, priority) in context.steps:
                raise _error(
                    section.file, entry.line, f"{extension},{priority} stands twice in [{section.name}]", "drop one"
                )
            context.steps.add((extension, priority))
            if found[2]:
                context.labels.add((extension, found[2]))
            _check_call(section.file, entry.line, found[3])
            jumps += [(section, entry.line, extension, target) for target in _targets(found[3])]
    for section, line, extension, target in jumps:
        _check_jump(contexts, section, line, extension, target)


class _Context:
    def __init__(self) -> None:
        self.steps: set[tuple[str, int]] = set()
        self.labels: set[tuple[str, str]] = set()


def _check_call(file: str, line: int, call: str) -> None:
    if not re.match(r"\s*[A-Za-z]\w*(\(.*\))?\s*\Z", call):
        raise _error(file, line, f"{call!r} is no application call", "write Application(arguments)")
    for opening, closing in ("()", "{}", "[]"):
        body = call.replace("$[", "$\x00").replace("\x00", "[")
        if opening != "[" and body.count(opening) != body.count(closing):
            raise _error(file, line, f"{call!r}: {opening} and {closing} do not pair up", "mend the brackets")


def _targets(call: str) -> list[str]:
    """Where a step may jump to, as written: "label", "exten,priority" or "context,exten,priority"."""
    found = re.match(r"\s*(Goto|Gosub|GotoIf|GosubIf)\((.*)\)\s*\Z", call)
    if found is None:
        targets = re.findall(r"\b[UbB]\(([\w-]+)[\^)]", call)
        targets += re.findall(r"hangup_handler_push\)=([\w-]+,\w+,\w+)", call)
        return [t if "," in t else f"{t},s,1" for t in targets]
    if found[1] in ("Goto", "Gosub"):
        return [re.sub(r"\(.*\)\Z", "", found[2])]
    branches = found[2].rpartition("]?")[2]
    return [re.sub(r"\(.*\)\Z", "", part) for part in branches.split(":") if part.strip()]


def _check_jump(contexts: dict[str, _Context], section: Section, line: int, extension: str, target: str) -> None:
    if "${" in target:
        return
    parts = [part.strip() for part in target.split(",")]
    where, step = contexts[section.name], parts[-1]
    if len(parts) == 3:
        if parts[0] not in contexts:
            raise _error(section.file, line, f"jumps to context {parts[0]!r}, which does not exist", "mend the name")
        where = contexts[parts[0]]
    if len(parts) >= 2:
        extension = parts[-2]
    known = (extension, int(step)) in where.steps if step.isdigit() else (extension, step) in where.labels
    if not known:
        raise _error(section.file, line, f"jumps to {target}, which does not exist", "mend the extension or the label")


def _no_duplicates(conf: ConfFile) -> None:
    seen: dict[str, int] = {}
    for section in conf.sections:
        if section.name in seen and not section.added:
            raise _error(
                conf.name, section.line, f"[{section.name}] stands already in line {seen[section.name]}", "join them"
            )
        seen[section.name] = section.line


def _with_includes(parsed: Mapping[str, ConfFile], name: str, seen: frozenset[str] = frozenset()) -> list[Section]:
    if name in seen:
        raise ConfigError(f"{name} includes itself", hint="remove the #include")
    conf = parsed[name]
    sections = list(conf.sections)
    for target, _, _ in conf.includes:
        if target in parsed:
            sections += _with_includes(parsed, target, seen | {name})
    return sections


def _of_type(sections: Iterable[Section], kind: str) -> list[Section]:
    return [section for section in sections if section.get("type") == kind and not section.template]


def _is_match(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return bool(re.fullmatch(r"(?=.*[A-Za-z])[A-Za-z0-9.-]{1,253}", text))
    return True


def _at(section: Section, what: str, hint: str) -> ConfigError:
    return _error(section.file, section.line, f"[{section.name}] {what}", hint)


def _error(file: str, line: int, what: str, hint: str) -> ConfigError:
    return ConfigError(f"{file}, line {line}: {what}", hint=hint)
