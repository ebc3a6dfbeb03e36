"""A person's word, which wins over every stage: verdicts and texts set by hand."""

from __future__ import annotations

from lorakit.console import say
from lorakit.errors import LorakitError
from lorakit.project import Project, manifest
from lorakit.record import Record
from lorakit.text import sidecars


def review(project: Project, files: list[str], verdict: str | None = None, text: str | None = None, clear: bool = False) -> list[Record]:
    """Set (or clear) the verdict, 'keep' or 'reject', and the training text of photos, named as `status` names them.

    Returns the changed records. Raises `LorakitError` for a name that no photo has.
    """
    by_name = {r["file"]: r for r in project.manifest}
    unknown = [name for name in files if name not in by_name]
    if unknown:
        raise LorakitError(f"{unknown[0]}: no photo of this project is called so; `lorakit status` lists them")
    changed = []
    for name in files:
        human = {} if clear else dict(by_name[name].get("human", {}))
        human |= {key: value for key, value in (("verdict", verdict), ("text", text)) if value is not None}
        changed.append({**by_name[name], "human": human})
    project.manifest.keep(*changed)
    project.manifest.save()
    return changed


def adopt_edits(project: Project) -> int:
    """Take over texts that a person has edited in `dataset/*.txt` since they were written. Returns how many."""
    changed = []
    for record in project.manifest.everything():
        found = record.get("dataset")
        if not found:
            continue
        path = (project.dataset_folder / found["file"]).with_suffix(".txt")
        if not path.is_file():
            continue
        text = " ".join(sidecars.read_text(path).split())
        if not text:
            path.unlink()  # emptied by accident: stage dataset writes it again
        elif text != found["text"]:
            edited: Record = {**record, "human": {**record.get("human", {}), "text": text}, "dataset": {**found, "text": text}}
            changed.append(manifest.finish(edited, "trigger", "edited"))
    project.manifest.keep(*changed)
    if changed:
        project.manifest.save()
        say(f"caption   {len(changed)} texts edited by hand in dataset/ are taken over and kept")
    return len(changed)
