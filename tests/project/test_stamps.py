"""An update never un-trains a project: one that 0.1.0 finished stays finished, stage by stage, and a new setting keeps it so.

tests/frozen/0.1.0.zip is a small project with its photos as the code of 0.1.0 left it (tiny random base, a mask, a copy, a
broken photo, a text and a verdict by hand); HERE stands for the folder that it lies in.
"""

import dataclasses
import json
import zipfile
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from lorakit import lookup, pipeline, settings
from lorakit.cli import group
from lorakit.project import open_project, shards, stamps
from lorakit.project.manifest import Manifest
from lorakit.settings import setting

FROZEN = Path(__file__).parents[1] / "frozen" / "0.1.0.zip"
STAGES = (
    "scan", "check", "dedupe", "embed", "select", "crop", "caption", "trigger", "dataset", "cache", "train", "sample", "export", "report",
)  # fmt: skip
# What was raised by intent since then is another matter than a stamp that moved unseen: the stamps are compared under these.
VERSIONS = dict.fromkeys(STAGES[1:], 1) | {"trigger": 2}
CHECKS = {"borders": 1, "colour": 1, "compression": 2, "damaged": 2, "detail": 1, "exposure": 1, "moment": 1, "sharpness": 3, "size": 1}


@pytest.fixture
def frozen(tmp_path):
    """The folder of the frozen project, unpacked."""
    with zipfile.ZipFile(FROZEN) as archive:
        archive.extractall(tmp_path)
    for name in ("project.yaml", "manifest.jsonl"):
        path = tmp_path / "project" / name
        path.write_text(path.read_text(encoding="utf-8").replace("HERE", tmp_path.as_posix()), encoding="utf-8")
    return tmp_path / "project"


@pytest.fixture
def versions_of_then(monkeypatch):
    """The numbers of 0.1.0, and only the checks that it had: those that came since have measured nothing yet."""
    monkeypatch.setattr(stamps, "VERSIONS", stamps.VERSIONS | VERSIONS)
    monkeypatch.setattr(lookup, "is_installed", lambda module: module.__name__.rpartition(".")[2] in CHECKS)
    for name, number in CHECKS.items():
        monkeypatch.setattr(lookup.load(lookup.CHECKS, name), "VERSION", number)


@pytest.fixture
def add_setting(monkeypatch):
    """add_setting('train', field) puts a setting `toy` into a section, or into a check as 'check.size'."""

    def add(section, field):
        if section.startswith("check."):
            module = lookup.load(lookup.CHECKS, section.removeprefix("check."))
            monkeypatch.setattr(module, "Settings", _with_toy(module.Settings, field))
        else:
            monkeypatch.setitem(settings.SECTIONS, section, _with_toy(settings.SECTIONS[section], field))
        settings.known_keys.cache_clear()
        settings.check_section.cache_clear()

    yield add
    monkeypatch.undo()
    settings.known_keys.cache_clear()
    settings.check_section.cache_clear()


def _with_toy(section, field):
    return dataclasses.make_dataclass(section.__name__, [("toy", float, field)], bases=(section,), frozen=True)


def moved(folder, **changes):
    """The stages of a project that are not done, or no longer."""
    project = open_project(folder, settings=changes, device="cpu")
    counts = {name: pipeline.progress_of(project, name) for name in STAGES}
    return [name for name in STAGES if counts[name]["pending"] or counts[name]["failed"] or not counts[name]["done"]]


def new_settings(folder):
    """Settings that 0.1.0 did not have, and those that are gone: its runs keep the list."""
    then = set(yaml.safe_load(next(folder.glob("runs/*/settings.yaml")).read_text(encoding="utf-8")))
    return set(settings.known_keys()) - then, then - set(settings.known_keys())


def test_every_stage_of_a_project_of_0_1_0_is_still_done(frozen, versions_of_then):
    lost = moved(frozen)
    new, gone = new_settings(frozen)
    assert not lost, (
        f"the stamp of `{lost[0]}` has moved, so whoever updates must redo {', '.join(lost)}. Look at stamps.{lost[0]} and what it reads. "
        f"Settings that 0.1.0 had not: {sorted(new) or 'none'}; that are gone: {sorted(gone) or 'none'}"
    )


def test_and_once_its_book_has_moved_over_to_shards(frozen, versions_of_then, monkeypatch):
    monkeypatch.setattr(shards, "MOST_LINES", 2)
    book = Manifest(frozen)
    before = book.everything()
    book.keep_all(before[:1])
    assert shards.named_by(book.path) and Manifest(frozen).everything() == before
    assert not moved(frozen)


def test_run_again_finds_nothing_to_do(frozen, versions_of_then):
    before = (frozen / "manifest.jsonl").read_bytes(), next(frozen.glob("runs/*/run.json")).read_bytes()
    done = CliRunner().invoke(group, ["run", str(frozen.parent / "photos"), "-o", str(frozen), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert "nothing to do: " in done.output, done.output
    assert before[1] == next(frozen.glob("runs/*/run.json")).read_bytes()


def test_whatever_number_was_raised_nothing_is_trained_again(frozen):
    worked = pipeline.walk(open_project(frozen, device="cpu"), last="export")
    assert not {"cache", "train", "sample", "export"} & set(worked), (
        f"an update makes every user redo {worked}; raise a number in VERSIONS only where the former result was wrong"
    )


def test_every_setting_that_is_new_says_at_which_value_all_is_as_before(frozen):
    new, _ = new_settings(frozen)
    without = [
        key for key in sorted(new) if settings.known_keys()[key][0].metadata.get("neutral", dataclasses.MISSING) is dataclasses.MISSING
    ]
    assert not without, f"setting(..., neutral=X), X being the value at which all is as before, is missing in {', '.join(without)}"


@pytest.mark.parametrize("section", (*settings.SECTIONS, "check.size"))
def test_a_new_setting_at_its_neutral_value_changes_nothing(section, frozen, versions_of_then, add_setting):
    add_setting(section, setting(0.0, "a toy", neutral=0.0))
    assert open_project(frozen).settings.flat()[f"{section}.toy"] == 0.0
    assert moved(frozen) == []


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        (setting(0.0, "without a neutral value"), {}),
        (setting(1.0, "neutral is not the default", neutral=0.0), {}),
        (setting(0.0, "changed by the user", neutral=0.0), {"train.toy": 0.5}),
    ],
    ids=["none", "other default", "changed"],
)
def test_a_new_setting_elsewhere_counts(field, changes, frozen, versions_of_then, add_setting):
    add_setting("train", field)
    assert moved(frozen, **changes) == ["train", "sample", "export", "report"]


def test_a_stamp_reads_every_setting_that_is_not_neutral():
    @dataclasses.dataclass(frozen=True)
    class Inner:
        size: int = setting(0, "", neutral=0)

    @dataclasses.dataclass(frozen=True)
    class Outer:
        old: int = setting(1, "")
        new: int | None = setting(None, "", neutral=None)
        inner: Inner = dataclasses.field(default_factory=Inner)

    assert settings.for_stamp(Outer()) == {"old": 1}
    assert settings.for_stamp(Outer(2, 3, Inner(4))) == {"old": 2, "new": 3, "inner": {"size": 4}}


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ({"train.rank": 1}, ["train", "sample", "export", "report"]),
        ({"train.checkpoint_every": 3}, ["report"]),  # how it is done, not what comes out
        ({"export.precision": "bf16"}, ["export", "report"]),
        ({"sample.seed": 1}, ["sample", "report"]),
        ({"dataset.format": "jpg"}, ["dataset", "report"]),
        ({"caption.lead_tags": ["score_9"]}, ["trigger", "sample", "report"]),  # the texts are not made anew yet
        ({"check.size.min_side": 129}, ["report"]),  # all verdicts are the same
    ],
    ids=str,
)
def test_a_changed_setting_moves_its_stage_and_what_follows(change, lost, frozen, versions_of_then):
    assert moved(frozen, **change) == lost


@pytest.mark.parametrize(
    ("a", "b", "share"), [([0, 0, 4, 4], [0, 0, 4, 4], 1), ([0, 0, 4, 4], [2, 0, 6, 4], 1 / 3), ([0, 0, 1, 1], [5, 5, 6, 6], 0)]
)
def test_overlap_of_boxes(a, b, share):
    assert stamps.overlap(a, b) == stamps.overlap(b, a) == pytest.approx(share)


def test_words_stay_true_of_nearly_the_same_crop():
    record = {"crop": {"box": [0, 0, 100, 100]}, "caption": {"box": [0, 0, 100, 95]}}
    assert stamps.read_box(record) == [0, 0, 100, 95]
    record["caption"]["box"] = [0, 0, 100, 50]
    assert stamps.read_box(record) == [0, 0, 100, 100]


def test_frozen_project_is_whole():
    with zipfile.ZipFile(FROZEN) as archive:
        lines = archive.read("project/manifest.jsonl").decode().splitlines()
    assert FROZEN.stat().st_size < 300_000
    assert {stage for line in lines for stage in json.loads(line)["done"]} == set(STAGES) - {"train", "sample", "export", "report"}
