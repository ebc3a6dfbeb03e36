"""The grid and the single photo: the list, the pictures, what is decided of photos, and undo."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lorakit.console import safe
from lorakit.curate import crop as cropping
from lorakit.errors import Conflict, LorakitError
from lorakit.page import limits, texts
from lorakit.page.answers import answer, get, packed, post, take, take_list
from lorakit.page.pictures import SIDES
from lorakit.photos import buckets
from lorakit.photos.remote import placed
from lorakit.project import Project, by_hand, decisions
from lorakit.project.decisions import Change
from lorakit.quality import verdicts
from lorakit.record import Record
from lorakit.text.cleaning import whole

if TYPE_CHECKING:
    from lorakit.page.server import House

MOST_CHANGES = 100_000
MOST_TEXT = 20_000  # letters of a training text
SHOWN_HISTORY = 200
GONE_ON = 0.2  # seconds between two looks whether a browser still waits for a picture


def routes(house: House) -> list[BaseRoute]:
    return [
        get("/index", lambda request: packed(house.index.whole())),
        get("/changes", lambda request: changes(house, request)),
        get("/photo/{id}", lambda request: photo(house, request.path_params["id"])),
        get("/phrases", lambda request: texts.phrases_of(house)),
        get("/visits", lambda request: texts.visits_of(house)),
        get("/history", lambda request: history(house)),
        post("/decide", lambda sent: decide(house, sent)),
        post("/undo", lambda sent: undo(house, sent)),
        post("/text/look", lambda sent: texts.look(house, sent)),
        post("/limits/look", lambda sent: limits.look(house, sent)),
        post("/limits/save", lambda sent: limits.save(house, sent)),
        post("/apply", lambda sent: house.children.start("run", "--until", "dataset")),
        Route("/{kind}/{id}.jpg", picture(house), methods=["GET"]),
    ]


def changes(house: House, request: Request) -> dict[str, Any]:
    """What is new since a revision of this server; and what a command that was started here says."""
    since = request.query_params.get("since", "0")
    found = house.index.since(request.query_params.get("epoch", ""), int(since) if since.isdecimal() and len(since) < 16 else 0)
    return found | {"child": house.children.told()}


def picture(house: House):
    """A photo as JPEG; given up where the browser has gone on before it was begun."""

    async def endpoint(request: Request) -> Response:
        kind = request.path_params["kind"]
        if kind not in SIDES:
            return answer({"error": "no such picture"}, 404)
        id = request.path_params["id"]
        if not house.index.is_ready and (kept := house.pictures.kept(id.partition("~")[0], kind)) is not None:  # known by its content
            return _jpeg(kept)
        found = await asyncio.to_thread(house.index.peek, id)
        if found is None:
            return answer({"error": "this photo is no longer in the project"}, 404)
        path, content, longest = found
        made = house.pictures.get(placed(path, content), content, longest, kind)
        waited = asyncio.wrap_future(made)
        try:
            while not (await asyncio.wait([waited], timeout=GONE_ON))[0]:
                if await request.is_disconnected():
                    waited.cancel()
                    return Response(status_code=499)
            body = waited.result()
        except (LorakitError, OSError) as error:
            return answer({"error": safe(str(error))}, 404)
        return _jpeg(body)

    return endpoint


def _jpeg(body: bytes) -> Response:
    return Response(body, media_type="image/jpeg", headers={"cache-control": "private, max-age=31536000, immutable"})


def photo(house: House, id: str) -> dict[str, Any]:
    """All that the view of one photo needs beside its row."""
    with house.index.held() as project:
        record = house.index.record(project, id)
        found = {
            "row": house.index.rows[id],
            "path": safe(record["path"]),
            "reasons": _numbers(record, project),
            "caption": record.get("caption", {}).get("sentence") or ", ".join(record.get("caption", {}).get("tags", ())),
            "captionBy": safe(record.get("caption", {}).get("by", "")),
            "readings": record.get("readings", []),
            "facets": [facet[0] for facet in (record.get("facets") or {}).values() if facet and facet[0]],
            "taken": (record.get("measures", {}).get("moment") or {}).get("taken"),
        }
        if verdicts.is_readable(record):
            found["crop"] = _crop_facts(record, project)
        return found


def _numbers(record: Record, project: Project) -> list[dict[str, Any]]:
    found = verdicts.judge(record, project.settings)
    return [{"verdict": r.verdict, "reason": r.reason, "value": r.value, "limit": r.threshold} for r in found.reasons]


def _crop_facts(record: Record, project: Project) -> dict[str, Any]:
    """The box as it would be without a person, the buckets, faces, and how much a photo may be enlarged."""
    settings = project.settings
    region = cropping.region_of(record, settings)
    bucket = cropping.bucket_for(region, settings)
    box = cropping.place(region, bucket, record, settings.crop.faces)
    sizes = buckets.sizes(settings.train.resolution, settings.train.bucket_step, settings.crop.max_aspect)
    return {
        "auto": {"box": list(box), "bucket": list(bucket)},
        "buckets": sorted({*sizes, tuple(bucket)}, key=lambda size: (size[0] / size[1], size[0])),
        "faces": (record["measures"].get("faces") or {}).get("boxes") or [],
        "most": settings.crop.max_upscale,
    }


class Wanted(NamedTuple):
    """One change that the page asks for: `was` is what it showed."""

    record: Record
    what: str
    was: Any
    now: Any

    @property
    def there(self) -> Any:
        """What holds by now."""
        return self.record.get("human", {}).get(self.what)


def decide(house: House, sent: dict[str, Any]) -> dict[str, Any] | Response:
    """One decision about any number of photos: {"changes": [{"ids", "what", "was", "now"}]}. Where a value is no longer what the page
    showed, nothing is written, and the answer is a conflict with the rows as they are. Asked twice, as after an answer that was lost, it
    is done once."""
    asked = [(id, change) for change in take_list(sent, "changes", dict) for id in take_list(change, "ids", str)]
    if len(asked) > MOST_CHANGES:
        raise LorakitError(f"more than {MOST_CHANGES} changes in one decision")
    with house.index.held() as project:
        project.take_decisions()
        wanted = _once([_wanted(house, project, id, change) for id, change in asked])
        touched = {one.record["id"] for one in wanted}
        try:
            written = project.decide([_change(one) for one in wanted if one.there != one.now], "page")
        except Conflict as error:
            return answer({"error": str(error), "conflict": True, "rows": house.index.laid(touched)}, 409)
        touched |= {change["id"] for change in (written or {}).get("changes", ())}  # those of a copy that it takes over from
        rows = house.index.laid(touched)
        return house.index.since(house.index.epoch, house.index.revision) | {"rows": rows, "n": written and written["n"]}


def _wanted(house: House, project: Project, id: str, change: dict[str, Any]) -> Wanted:
    """What is asked for, checked. Raises `LorakitError`."""
    record = house.index.record(project, id)
    what: str = take(change, "what", str)
    now: Any = change.get("now")
    name = safe(record["file"])
    if what not in by_hand.OF_A_PHOTO or not decisions.is_value(what, now):
        raise LorakitError(f"{name}: no such decision")
    if what == "text" and now is not None:
        now = " ".join(whole(now).split())
        if len(now) > MOST_TEXT:
            raise LorakitError(f"{name}: a text of more than {MOST_TEXT} letters")
    if what == "crop" and now is not None:
        now = by_hand.check_crop(record, {key: now[key] for key in ("box", "bucket")})
        facts, there = _crop_facts(record, project), record.get("human", {}).get("crop")
        if now != there and now["bucket"] not in map(list, facts["buckets"]):
            raise LorakitError(f"{name}: {now['bucket'][0]}x{now['bucket'][1]} is no bucket of {project.card.title}")
    if what == "apart" and now is not None:
        now = sorted(set(now))
        if record["id"] in now or not set(now) <= house.index.rows.keys():
            raise LorakitError(f"{name}: it can be set apart from other photos of this project only")
    return Wanted(record, what, change.get("was"), now)


def _once(wanted: list[Wanted]) -> list[Wanted]:
    """Each thing once. Raises `LorakitError` where it is to be two things at once: that could not be taken back."""
    found: dict[tuple[str, str], Wanted] = {}
    for one in wanted:
        if found.setdefault((one.record["id"], one.what), one).now != one.now:
            raise LorakitError(f"{safe(one.record['file'])}: its {one.what} cannot be two things at once")
    return list(found.values())


def _change(wanted: Wanted) -> Change:
    """Raises `Conflict` where something else holds by now than the page showed."""
    record, what, was, now = wanted
    if wanted.there != was:
        there = "others" if what == "apart" else decisions.in_words(what, wanted.there)
        raise Conflict(f"{safe(record['file'])}: its {what} is {there} by now, decided elsewhere; nothing was changed")
    return by_hand.change(record, what, now)


def undo(house: House, sent: dict[str, Any]) -> dict[str, Any]:
    """Take back the decision of this number; that of an undo brings its decision back. Asked twice, it is done once."""
    number = take(sent, "n", int)
    with house.index.held() as project:
        project.take_decisions()
        touched: set[str] = set()
        if project.manifest.decisions.undone_by(number) is None:
            _, written = by_hand.undo(project, number, by="page")
            touched = {change["id"] for change in written["changes"]}
        rows = house.index.laid(touched)
        return house.index.since(house.index.epoch, house.index.revision) | {"rows": rows}


def history(house: House) -> dict[str, Any]:
    """The last decisions, newest first, as `lorakit history` says them."""
    with house.index.held() as project:
        found = by_hand.history(project)[-SHOWN_HISTORY:]
    lines = []
    for line in reversed(found):
        words: dict[str, list[str]] = {}
        for change in line["changes"]:
            what = cast("str", change["what"])
            now = "" if what == "apart" else f" {safe(decisions.in_words(what, change['now']))}"
            words.setdefault(f"{what}{now}", []).append(safe(change["file"]))
        told = [f"{what}: {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}" for what, names in words.items()]
        told += ["rules of words"] if line["rules"] else []
        lines.append({key: line[key] for key in ("n", "at", "by", "undoes", "undone_by")} | {"words": "; ".join(told)})
    return {"lines": lines}
