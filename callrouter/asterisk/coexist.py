"""Living in somebody's own Asterisk: our files in a directory of theirs, one marked #tryinclude at the end of theirs.

Theirs are never overwritten: a block between two markers is added, and taken out again by uninstall.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from callrouter.asterisk.conffile import parse_conf
from callrouter.asterisk.doors import dangerous_option
from callrouter.asterisk.modules import MODULES, SRTP
from callrouter.asterisk.render import FIXED_DIALPLANS, Install, fixed_dialplan, render_template, template_values
from callrouter.asterisk.secrets import Secrets
from callrouter.asterisk.validate import check_dialplan, check_pjsip
from callrouter.config import Settings
from callrouter.core.model import Trunk
from callrouter.errors import ConfigError, ConflictError
from callrouter.files import replace_file

DIRECTORY = "callrouter.d"
BEGIN = "; >>> callrouter: added by callrouter asterisk install"
END = "; <<< callrouter"
BACKUP_SUFFIX = ".before-callrouter"
TOUCHED = ("pjsip.conf", "extensions.conf", "ari.conf", "manager.conf", "cdr_custom.conf")
"""Files of theirs that get an include."""

_HEAD = re.compile(r"^\[([^\[\]]+)\]", re.MULTILINE)
_INCLUDE = re.compile(r'^#\s*(?:try)?include\s+["<]?([^">\n]+?)[">]?\s*$', re.MULTILINE)
_NOLOAD = re.compile(r"^\s*noload\s*=>?\s*([\w.]+)", re.MULTILINE)
_BLOCK = re.compile(rf"^{re.escape(BEGIN)}\n.*?^{re.escape(END)}\n?", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Edit:
    """One file of theirs. ``before`` None: it does not exist; ``after`` None: it is to be removed."""

    path: Path
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class InstallPlan:
    etc_dir: Path
    files: Mapping[str, str]
    """Ours: path below ``callrouter.d`` → text. Empty: the directory is removed."""
    edits: tuple[Edit, ...]
    notes: tuple[str, ...] = field(default=())
    """What the admin has to see to."""

    @property
    def empty(self) -> bool:
        """Nothing would change."""
        return not self.edits and _read_ours(self.etc_dir) == dict(self.files)

    def describe(self) -> list[str]:
        """The plan in lines, for --dry-run. Shows no secret."""
        ours = self.etc_dir / DIRECTORY
        now = _read_ours(self.etc_dir)
        lines = []
        if not self.files and now:
            lines.append(f"remove {ours}")
        for name, text in sorted(self.files.items()):
            if now.get(name) != text:
                lines.append(f"{'write' if name not in now else 'replace'} {ours / name}")
        for edit in self.edits:
            if edit.after is None:
                lines.append(f"remove {edit.path}: only callrouter's include was in it")
            elif edit.before is None:
                lines.append(f"create {edit.path} with an include of ours")
            elif BEGIN in edit.after:
                lines.append(f"add an include at the end of {edit.path} (copy kept as {edit.path.name}{BACKUP_SUFFIX})")
            else:
                lines.append(f"take callrouter's include out of {edit.path}")
        return (lines or ["nothing to do"]) + [f"note: {note}" for note in self.notes]


def plan_install(
    settings: Settings, install: Install, etc_dir: Path, trunks: Sequence[Trunk], secrets: Secrets
) -> InstallPlan:
    """What would be written into an Asterisk's own configuration directory. Nothing is touched yet.

    :raises ConfigError: there is no configuration there, a needed module is absent or forbidden, or a value is wrong
    :raises ConflictError: a section name of ours is taken
    """
    if not (etc_dir / "asterisk.conf").is_file() and not (etc_dir / "modules.conf").is_file():
        raise ConfigError(f"{etc_dir} is no configuration directory of an Asterisk", hint="give it with --etc DIR")
    theirs = {name: _strip_block(text) for name in TOUCHED if (text := _read(etc_dir / name)) is not None}
    everything = {name: _with_includes(etc_dir, text) for name, text in theirs.items()}
    values = template_values(settings, install, trunks, secrets, coexist=True)
    values |= {
        "add_globals": "globals" in _names(everything.get("extensions.conf", "")),
        "add_mappings": "mappings" in _names(everything.get("cdr_custom.conf", "")),
        "ledger_file": str(settings.ledger_path) if values["fast_ledger"] else "callrouter.csv",
    }
    files = {
        "pjsip.conf": render_template("pjsip-endpoints.conf", values),
        "extensions.conf": render_template("coexist-extensions.conf", values),
        "cr-trunks.conf": render_template("cr-trunks.conf", values),
        "ari.conf": render_template("ari-user.conf", values),
        "manager.conf": render_template("manager-user.conf", values),
        "cdr_custom.conf": render_template("cdr_custom.conf", values),
        **{name: fixed_dialplan(name) for name in FIXED_DIALPLANS},
    }
    _check(files)
    _refuse_conflicts(files, everything, etc_dir)
    edits = []
    for name in TOUCHED:
        before = _read(etc_dir / name)
        after = _with_block(theirs.get(name, ""), name)
        if before != after:
            edits.append(Edit(etc_dir / name, before, after))
    return InstallPlan(etc_dir, files, tuple(edits), tuple(_notes(settings, etc_dir, everything, values)))


def plan_uninstall(etc_dir: Path) -> InstallPlan:
    """What taking us out again would change."""
    edits = []
    for name in TOUCHED:
        before = _read(etc_dir / name)
        if before is not None and BEGIN in before:
            after = _strip_block(before)
            made_by_us = not after.strip() and not (etc_dir / (name + BACKUP_SUFFIX)).exists()
            edits.append(Edit(etc_dir / name, before, None if made_by_us else after))
    return InstallPlan(etc_dir, {}, tuple(edits))


def apply(plan: InstallPlan) -> bool:
    """Carry a plan out: our directory first, then the includes, so that no include ever points at nothing.

    A file of theirs that gets its first include is copied to NAME.before-callrouter. Owner and mode stay as they are.

    :return: whether anything changed
    :raises ConflictError: a file was changed since the plan was made; nothing of it is lost, plan again
    """
    if plan.empty:
        return False
    for edit in plan.edits:
        if _read(edit.path) != edit.before:
            raise ConflictError(f"{edit.path} changed meanwhile", hint="run the command again")
    ours = plan.etc_dir / DIRECTORY
    if plan.files:
        _write_ours(plan, ours)
    for edit in plan.edits:
        if edit.after is None:
            edit.path.unlink(missing_ok=True)
            continue
        backup = edit.path.with_name(edit.path.name + BACKUP_SUFFIX)
        if edit.before is not None and BEGIN not in edit.before and not backup.exists():
            shutil.copy2(edit.path, backup)
            _own(backup, edit.path)
        _replace(edit.path, edit.after, like=edit.path if edit.before is not None else plan.etc_dir)
    if not plan.files:
        shutil.rmtree(ours, ignore_errors=True)
        for name in TOUCHED:
            backup = plan.etc_dir / (name + BACKUP_SUFFIX)
            if backup.exists() and _read(backup) == _read(plan.etc_dir / name):
                backup.unlink()
    return True


def _check(files: Mapping[str, str]) -> None:
    parsed = {name: parse_conf(f"{DIRECTORY}/{name}", text) for name, text in files.items()}
    # Their transports are theirs to name; ours are not rendered here.
    check_pjsip(parsed["pjsip.conf"].sections)
    check_dialplan([s for name in ("cr-trunks.conf", *FIXED_DIALPLANS) for s in parsed[name].sections])


def _refuse_conflicts(files: Mapping[str, str], everything: Mapping[str, str], etc_dir: Path) -> None:
    dialplan = "\n".join(files[name] for name in ("cr-trunks.conf", *FIXED_DIALPLANS))
    wanted = {
        "pjsip.conf": files["pjsip.conf"],
        "extensions.conf": dialplan,
        "ari.conf": files["ari.conf"],
        "manager.conf": files["manager.conf"],
        "cdr_custom.conf": files["cdr_custom.conf"].replace("[mappings]", ""),
    }
    for name, text in wanted.items():
        taken = _names(text) & _names(everything.get(name, ""))
        if taken:
            raise ConflictError(
                f"{etc_dir / name} has [{min(taken)}] already",
                hint="rename it there, or rename the trunk or user here",
            )


def _notes(settings: Settings, etc_dir: Path, everything: Mapping[str, str], values: Mapping[str, Any]) -> list[str]:
    notes = []
    modules = _read(etc_dir / "modules.conf") or ""
    forbidden = {name.removesuffix(".so") for name in _NOLOAD.findall(modules)}
    lines: list[dict[str, Any]] = values["trunks"]
    groups = (*MODULES, SRTP) if any(trunk["srtp"] for trunk in lines) else MODULES
    needed = {name for group in groups for name in group.required}
    if forbidden & needed:
        raise ConfigError(
            f"{etc_dir / 'modules.conf'} forbids {', '.join(sorted(forbidden & needed))}",
            hint="remove those noload lines",
        )
    if re.search(r"^\s*autoload\s*=\s*no", modules, re.MULTILINE):
        notes.append(f"modules.conf has autoload = no: see that it loads {', '.join(sorted(needed))}")
    for name, port, setting in (
        ("http.conf", settings.ari_port, "ari_port"),
        ("manager.conf", settings.ami_port, "ami_port"),
    ):
        text = _read(etc_dir / name) or ""
        if not re.search(r"^\s*enabled\s*=>?\s*(yes|true|1|on)", text, re.MULTILINE):
            notes.append(f"{name} needs enabled = yes in [general]")
        address = re.search(r"^\s*bindaddr\s*=>?\s*([0-9A-Fa-f:.]+)", text, re.MULTILINE)
        if address and not ip_address(address[1]).is_loopback:
            notes.append(f"{name} listens on {address[1]}, unencrypted: bindaddr = 127.0.0.1 keeps it to this machine")
        found = re.search(r"^\s*(?:bindport|port)\s*=>?\s*(\d+)", text, re.MULTILINE)
        if found and int(found[1]) != port:
            notes.append(f"{name} listens on port {found[1]}: set {setting} = {found[1]} in callrouter.toml")
    if (line := dangerous_option(etc_dir)) is not None:
        notes.append(f"asterisk.conf has {line}: callrouter does not start with it, set it to no")
    if re.search(r"^[^;\n]*=[^;\n]*(?:\bdtmf\b|[>,\s]\*)", _read(etc_dir / "logger.conf") or "", re.MULTILINE):
        notes.append("logger.conf logs dtmf: take that level out, or keys that callers press in secret are in a log")
    pjsip = everything.get("pjsip.conf", "")
    secure = [trunk["name"] for trunk in lines if trunk["transport"] == "tls"]
    if secure and not re.search(r"^\s*protocol\s*=>?\s*tls", pjsip, re.MULTILINE):
        notes.append(f"pjsip.conf has no transport with protocol = tls, and trunk {', '.join(secure)} needs one")
    if "anonymous" in {name.lower() for name in _names(pjsip)}:
        notes.append("pjsip.conf lets anonymous callers in: keep their context away from your trunks")
    if not re.search(r"^\s*taskprocessor_overload_trigger\s*=\s*pjsip_only", pjsip, re.MULTILINE):
        notes.append(
            "pjsip.conf: taskprocessor_overload_trigger = pjsip_only under type=global keeps calls coming under load"
        )
    cdr = _read(etc_dir / "cdr.conf") or ""
    notes.extend(
        f"cdr.conf: {key} = yes makes callrouter's ledger complete; it changes your own CDRs too"
        for key in ("unanswered", "congestion", "endbeforehexten", "ignorestatechanges", "ignoredialchanges")
        if not re.search(rf"^\s*{key}\s*=>?\s*yes", cdr, re.MULTILINE)
    )
    if not values["fast_ledger"]:
        notes.append(
            f"the ledger will be cdr-custom/callrouter.csv in Asterisk's log directory, not {settings.ledger_path}"
        )
    notes.append(
        f"the user Asterisk runs as must be able to enter {settings.home_dir} and to write {settings.recording_spool}"
    )
    return notes


def _names(text: str) -> set[str]:
    return {name.strip() for name in _HEAD.findall(text)} - {"general"}


def _with_includes(etc_dir: Path, text: str, depth: int = 0) -> str:
    """A file and what it includes, as far as it can be read: only to see which names are taken."""
    found = [text]
    for target in _INCLUDE.findall(text):
        paths = [Path(target)] if target.startswith("/") else sorted(etc_dir.glob(target))
        found.extend(
            _with_includes(etc_dir, more, depth + 1)
            for path in paths
            if depth < 5 and path.parent.name != DIRECTORY and (more := _read(path)) is not None
        )
    return "\n".join(found)


def _with_block(text: str, name: str) -> str:
    if text and not text.endswith("\n"):
        text += "\n"
    return f"{text}{BEGIN}\n#tryinclude {DIRECTORY}/{name}\n{END}\n"


def _strip_block(text: str) -> str:
    return _BLOCK.sub("", text)


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc}", hint="run this as root") from exc


def _read_ours(etc_dir: Path) -> dict[str, str]:
    ours = etc_dir / DIRECTORY
    return {path.name: _read(path) or "" for path in ours.iterdir()} if ours.is_dir() else {}


def _write_ours(plan: InstallPlan, ours: Path) -> None:
    fresh = Path(tempfile.mkdtemp(prefix=f".{DIRECTORY}.", dir=plan.etc_dir))
    old = plan.etc_dir / f".{DIRECTORY}.old"
    try:
        for name, text in plan.files.items():
            path = fresh / name
            path.write_text(text, "utf-8")
            path.chmod(0o640)
            _own(path, plan.etc_dir)
        fresh.chmod(0o750)
        _own(fresh, plan.etc_dir)
        shutil.rmtree(old, ignore_errors=True)
        if ours.exists():
            ours.rename(old)
        fresh.rename(ours)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _replace(path: Path, text: str, *, like: Path) -> None:
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o640
    content = text.encode("utf-8", "surrogateescape")
    replace_file(path, content, mode=mode, prepare=lambda part: _own(part, like))


def _own(path: Path, like: Path) -> None:
    """Owner and group as ``like`` has them, where we may."""
    there = like.stat()
    if os.geteuid() == 0:
        os.chown(path, there.st_uid, there.st_gid)
