"""The limits of checks as sliders: what another limit would keep or reject, from the measures that are there, and keeping it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from lorakit import lookup
from lorakit import settings as settings_module
from lorakit.errors import LorakitError
from lorakit.page.answers import take
from lorakit.project import config
from lorakit.project.project import FILE
from lorakit.quality import verdicts
from lorakit.record import Record
from lorakit.settings import Settings

if TYPE_CHECKING:
    from lorakit.page.server import House

SHOWN = 24  # photos that another limit would judge otherwise


def look(house: House, sent: dict[str, Any]) -> dict[str, Any]:
    """The limits behind a reason, or behind those that were asked for with other values ({"values": {setting: number}}): what each
    means, and which photos would be judged otherwise."""
    reason, values = take(sent, "reason", str), take(sent, "values", dict, type(None)) or {}
    with house.index.held() as project:
        records, settings = list(project.manifest), project.settings
    check = _check_of(reason, records, settings)
    if check is None:
        return {"limits": [], "more": [], "fewer": []}
    changed = _with(settings, check, _converted(check, values)) if values else settings
    more, fewer = [], []
    for record in records:
        if check not in record.get("measures", {}) or record.get("human", {}).get("verdict"):
            continue
        before, after = (verdicts.judge(record, one).verdict == "reject" for one in (settings, changed))
        if before != after:
            (more if before else fewer).append(record["id"])
    return {"limits": _limits(check, changed, records), "more": len(more), "fewer": len(fewer), "shown": [*more, *fewer][:SHOWN]}


def save(house: House, sent: dict[str, Any]) -> dict[str, Any]:
    """Keep other limits in project.yaml; the next run chooses by them."""
    check = take(sent, "check", str)
    lookup.check_name(lookup.CHECKS, check)
    values = _converted(check, take(sent, "values", dict))
    with house.index.held() as project, project.manifest.decisions.locked():
        config.edit(house.folder / FILE, {"settings": values})
    return {"saved": list(values)}


def _check_of(reason: str, records: list[Record], settings: Settings) -> str | None:
    """The check that gives this reason to a photo."""
    for record in records:
        for name, measures in record.get("measures", {}).items():
            if name in lookup.names(lookup.CHECKS):
                found = lookup.load(lookup.CHECKS, name).judge(measures, getattr(settings.check, name))
                if any(one.reason == reason for one in found):
                    return name
    return None


def _limits(check: str, settings: Settings, records: list[Record]) -> list[dict[str, Any]]:
    section = getattr(settings.check, check)
    found = []
    for spec in dataclasses.fields(section):
        value = getattr(section, spec.name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        least, most = spec.metadata.get("least"), spec.metadata.get("most")
        low = least if least is not None else min(0, 2 * value)
        high = most if most is not None else max(3 * value, 1)
        step = 1 if isinstance(value, int) else _step(high - low)
        facts = {"key": f"check.{check}.{spec.name}", "help": spec.metadata.get("help", ""), "value": value}
        found.append(facts | {"least": low, "most": high, "step": step})
    return found


def _step(width: float) -> float:
    return 0.001 if width <= 0.2 else 0.005 if width <= 1 else 0.01 if width <= 10 else 1


def _converted(check: str, values: dict[str, Any]) -> dict[str, Any]:
    """Raises `LorakitError` for what is no limit of this check, or a value that it cannot take."""
    for key, value in values.items():
        if not key.startswith(f"check.{check}.") or isinstance(value, bool) or not isinstance(value, (int, float)):
            raise LorakitError(f"{key}: no limit of this check")
    return {key: settings_module.convert(key, value, "the page") for key, value in values.items()}


def _with(settings: Settings, check: str, values: dict[str, Any]) -> Settings:
    section = dataclasses.replace(getattr(settings.check, check), **{key.rpartition(".")[2]: value for key, value in values.items()})
    return dataclasses.replace(settings, check=dataclasses.replace(settings.check, **{check: section}))
