"""A person's word, which wins over every stage: verdicts, texts and crops set by hand, and copies that are none."""

from __future__ import annotations

from collections.abc import Sequence

from lorakit import files
from lorakit.console import say
from lorakit.project import Project, by_hand, manifest
from lorakit.record import Record
from lorakit.text import sidecars
from lorakit.text.cleaning import captions_in

TEXTS = "texts"  # what is noted of those in dataset/


def review(
    project: Project,
    files: list[str],
    verdict: str | None = None,
    text: str | None = None,
    clear: bool = False,
    crop: Sequence[int] | None = None,
    apart: str | None = None,
    by: str = "command",
) -> list[Record]:
    """Set (or clear) what is decided of photos, named as `status` names them: the verdict, 'keep' or 'reject'; the training
    text; the crop, a box of (left, top, right, bottom) in pixels of the upright photo; and `apart`, the name of a photo that
    they are no copies of.

    One decision, which waits for no work in the project: the next run, or the one at work before its next stage, takes it in.
    Returns the records of the photos. Raises `LorakitError` for a name that no photo has or a box outside of a photo.
    """
    photos = by_hand.find_photos(project, files)
    changes = by_hand.take_back_all(project, photos) if clear else []
    for record in photos:
        found = (("verdict", verdict), ("text", text), ("crop", by_hand.crop_to(project, record, crop) if crop else None))
        changes += [by_hand.change(record, what, now) for what, now in found if now is not None]
    if apart is not None:
        changes += by_hand.set_apart(photos, *by_hand.find_photos(project, [apart]))
    project.decide(_last_of_each(changes), by)
    return [project.manifest[record["id"]] for record in photos]


def _last_of_each(changes: list[by_hand.Change]) -> list[by_hand.Change]:
    """One change of each thing: what is cleared and set anew in one go is set."""
    return list({(change["id"], change["what"]): change for change in changes}.values())


def _as_one_line(text: str) -> str:
    """An edited text; lines that are tags are joined by commas, others by spaces."""
    return " ".join(captions_in(text)) if "\n" in text.strip() else " ".join(text.split())


def adopt_edits(project: Project) -> int:
    """Take over texts that a person has edited in `dataset/*.txt` since they were written, as one decision. Returns how many."""
    noted, now = project.manifest.notes.found, _state_of_texts(project)
    if now and project.manifest.is_saved and noted.get(TEXTS) == now[0]:
        return 0  # they were read when all was as it is now
    changes, edited = [], []
    for record in project.manifest.everything():
        found = record.get("dataset")
        if not found:
            continue
        path = (project.dataset_folder / found["file"]).with_suffix(".txt")
        if not path.is_file():
            continue
        if path.stat().st_size > sidecars.MOST_BYTES:
            sidecars.pass_over(str(path), "too large for a caption")
            now = None
            continue
        text = _as_one_line(sidecars.read_text(path))
        if not text:
            path.unlink()  # emptied by accident: stage dataset writes it again
            now = None
        elif text != found["text"]:
            changes.append(by_hand.change(record, "text", text))
            taken: Record = {**record, "dataset": {**found, "text": text}}
            edited.append(manifest.finish(taken, "trigger", "edited"))
    if edited:
        project.decide(changes, "file")
        project.manifest.keep(*edited)
        project.manifest.save()
        say(f"caption   {len(edited)} texts edited by hand in dataset/ are taken over and kept")
    elif now and project.manifest.is_saved and files.would_show(now[1]):
        noted[TEXTS] = now[0]
    return len(edited)


def _state_of_texts(project: Project) -> tuple[str, int] | None:
    """(what tells the texts in dataset/ as they are from any others, when the newest was changed)."""
    try:
        return files.folder_state(project.dataset_folder, ending=".txt")
    except OSError:
        return None
