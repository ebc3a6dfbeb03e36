"""What trainings have drawn, step by step and strength by strength; the pick, the export, and the files that came of it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from lorakit import files
from lorakit.console import safe
from lorakit.errors import LorakitError, UnreadablePhoto
from lorakit.page.answers import NotThere, get, post, take
from lorakit.page.training import facts, find_run, sampled_steps
from lorakit.photos.decode import load_image
from lorakit.project import by_hand
from lorakit.project.runs import Run
from lorakit.text.words import count_word

if TYPE_CHECKING:
    from lorakit.page.server import House

ENDINGS = (".safetensors", ".comfyui.json", ".preview.png", ".json", ".html")  # of what may be taken from a run's folder
MOST_STRENGTHS = 12
SCORES = ("subject", "leak", "burnt")  # of a sheet's columns, where open_clip has looked at them
NOT_GIVEN = ("run.json", "begun.json")


def routes(house: House) -> list[BaseRoute]:
    return [
        get("/runs/{n:int}/results", lambda request: results(house, request.path_params["n"])),
        get("/runs/{n:int}/step/{step:int}/{cell:int}.jpg", lambda request: _drawn(house, request, _of_step)),
        get("/runs/{n:int}/final/{cell:int}/{which}.jpg", lambda request: _drawn(house, request, _of_final)),
        get("/runs/{n:int}/grid/{grid:int}/{row:int}/{column:int}.jpg", lambda request: _drawn(house, request, _of_grid)),
        Route("/runs/{n:int}/file/{file:int}", lambda request: _file(house, request), methods=["GET"]),
        post("/pick", lambda sent: pick(house, sent)),
        post("/draw", lambda sent: draw(house, sent)),
        post("/export", lambda sent: house.children.start("export")),
    ]


def results(house: House, n: int) -> dict[str, Any]:
    """All pictures and files of a run by their numbers."""
    run = find_run(house, n)
    with house.index.held() as project:
        trigger, picked = project.trigger, project.manifest.decisions.pick(run.folder.name)
        try:
            is_present = by_hand.training(project).folder == run.folder
        except LorakitError:
            is_present = False
    result = run.facts.get("result", {})
    prompts = run.facts.get("planned", {}).get("prompts") or result.get("prompts") or []
    drawn = [str(text) for text in result.get("prompts") or prompts]
    return {
        "run": facts(run, n),
        "prompts": [{"text": text, "leak": bool(trigger) and not count_word(text, trigger)} for text in map(str, prompts)],
        "steps": [{"step": step, "cells": _cells(run.samples / f"step_{step:06d}", len(prompts))} for step in sampled_steps(run)],
        "final": [_final(run, drawn.index(text) if text in drawn else None) for text in map(str, prompts)],
        "grids": [_grid(sheet, trigger) for sheet in _sheets(run)],
        "picked": picked,
        "present": is_present,
        "lora": {"name": run.lora.stem, "bytes": run.lora.stat().st_size} if run.lora else None,
        "loaded": result.get("loaded") or {},
        "files": [{"name": path.name, "bytes": path.stat().st_size} for path in _files(run)],
    }


def _when(path: Path) -> int:
    """When a picture was written, so that a new one is fetched anew; 0 where there is none."""
    try:
        return int(path.stat().st_mtime * 1000)
    except OSError:
        return 0


def _cells(folder: Path, count: int) -> list[int]:
    return [_when(folder / f"{cell}.png") for cell in range(count)]


def _final(run: Run, cell: int | None) -> dict[str, Any]:
    """The pictures of one prompt, without the LoRA and with it, by the number that it has among those that were drawn at the end."""
    return {
        "cell": cell,
        **{which: 0 if cell is None else _when(run.samples / "final" / f"{cell}_{which}.png") for which in ("base", "lora")},
    }


def _sheets(run: Run) -> list[Path]:
    """What `lorakit grid` has told of its sheets, those of the chosen checkpoint first."""
    return sorted(
        (path for path in run.samples.glob("grid*.json") if path.with_suffix("").is_dir()),
        key=lambda path: (path.stem != "grid", path.stem),
    )


def _grid(sheet: Path, trigger: str | None) -> dict[str, Any]:
    try:
        told = json.loads(sheet.read_text(encoding="utf-8"))
        prompts, strengths = [str(text) for text in told["prompts"]], [float(one) for one in told["strengths"]]
        columns = [str(words) for words in told.get("columns") or strengths]
        step, others = told.get("step"), dict(told.get("with") or {})
    except (OSError, ValueError, KeyError, TypeError):  # by a hand, or half written
        return {"of": sheet.stem, "prompts": [], "strengths": [], "columns": [], "scores": {}, "cells": []}
    cells, scores = sheet.with_suffix(""), told.get("scores") if isinstance(told.get("scores"), dict) else {}
    return {
        "of": f"with {', '.join(map(safe, others))}" if others else "",
        "step": step if isinstance(step, int) else None,
        "prompts": [{"text": text, "leak": bool(trigger) and not count_word(text, trigger)} for text in prompts],
        "strengths": strengths,
        "columns": columns,
        "scores": {name: scores[name] for name in SCORES if isinstance(scores.get(name), list) and len(scores[name]) == len(strengths)},
        "cells": [[_when(cells / f"{y}_{x}.png") for x in range(len(strengths))] for y in range(len(prompts))],
    }


def _drawn(house: House, request: Request, find: Any) -> Response:
    """A picture of a run, encoded anew."""
    given = request.path_params
    path = find(find_run(house, given["n"]), given)
    try:
        buffer = io.BytesIO()
        load_image(path).save(buffer, "JPEG", quality=96, subsampling=0)
    except (UnreadablePhoto, OSError, ValueError):  # of sides that JPEG does not take
        raise NotThere("this picture is not there") from None
    return Response(buffer.getvalue(), media_type="image/jpeg", headers={"cache-control": "private, max-age=31536000, immutable"})


def _of_step(run: Run, given: dict[str, Any]) -> Path:
    return run.samples / f"step_{given['step']:06d}" / f"{given['cell']}.png"


def _of_final(run: Run, given: dict[str, Any]) -> Path:
    return run.samples / "final" / f"{given['cell']}_{'base' if given['which'] == 'base' else 'lora'}.png"


def _of_grid(run: Run, given: dict[str, Any]) -> Path:
    sheets = _sheets(run)
    if given["grid"] >= len(sheets):
        raise NotThere("this sheet is not there")
    return sheets[given["grid"]].with_suffix("") / f"{given['row']}_{given['column']}.png"


def _files(run: Run) -> list[Path]:
    return sorted(
        path
        for path in run.folder.iterdir()
        if path.is_file()
        and not path.is_symlink()
        and path.name.endswith(ENDINGS)
        and path.name not in NOT_GIVEN
        and files.is_plain_name(path.name)
    )


def _file(house: House, request: Request) -> Response:
    """A file of a run, to be kept: the LoRA and what lies beside it."""
    try:
        there = _files(find_run(house, request.path_params["n"]))
        path = there[request.path_params["file"]]
    except (NotThere, IndexError):
        return Response(status_code=404)
    return FileResponse(path, filename=path.name, media_type="application/octet-stream")


def pick(house: House, sent: dict[str, Any]) -> dict[str, Any]:
    """Decide which checkpoint of the present training is exported, and the strength to begin with; no step: the last again."""
    step = None if sent.get("step") is None else take(sent, "step", int)
    strength = None if sent.get("strength") is None else float(take(sent, "strength", int, float))
    with house.index.held() as project:
        project.take_decisions()
        run = find_run(house, take(sent, "n", int))
        if by_hand.training(project).folder != run.folder:
            raise LorakitError("this is a former training; what is exported is picked of the one that belongs to the present settings")
        by_hand.pick(project, step, strength if step is not None else None, by="page")
        return {"picked": project.manifest.decisions.pick(run.folder.name)}


def draw(house: House, sent: dict[str, Any]) -> dict[str, Any]:
    """Draw the prompts at several strengths, with the checkpoint of a step or the chosen one."""
    step = [] if sent.get("step") is None else ["--step", str(take(sent, "step", int))]
    asked = take(sent, "strengths", list)
    if not 1 <= len(asked) <= MOST_STRENGTHS or not all(
        isinstance(one, (int, float)) and abs(one) <= by_hand.MOST_STRENGTH for one in asked
    ):
        raise LorakitError(f"strengths: 1 to {MOST_STRENGTHS} numbers")
    strengths = map(float, asked)
    return house.children.start("grid", *step, "--strengths", ",".join(f"{one:g}" for one in strengths))
