"""Several captioners on one photo, what each has read kept by itself, answers that were stopped, and the page to choose between captioners."""

import base64
import json
import re
from dataclasses import replace
from importlib import import_module

import pytest
from click.testing import CliRunner

import lorakit
from lorakit import lookup
from lorakit.caption.captioners import imagenet
from lorakit.caption.captioners.base import NoCaption, card_of
from lorakit.caption.readings import Readings
from lorakit.cli import group
from lorakit.errors import LorakitError, WeightsMissing
from lorakit.text.composing import RawCaption

TOY = """
from lorakit.caption.captioners.base import CaptionerCard, Reader
from lorakit.text.composing import RawCaption

CARD = CaptionerCard(title="A toy", writes="sentence and tags", licence="none", weights=False, note="says what it is told to")
SAYS, ASKED = [RawCaption("A red mug stands on a table.", ("mug",))], []


def load(source, device, settings):
    def read(batch, told=None):
        ASKED.append((len(batch), settings.question, told))
        return [SAYS[min(n, len(SAYS) - 1)] for n in range(len(batch))]

    return Reader(lambda picture: picture, read, read)
"""


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """Two captioners of a test's own, `toy` and `teller`; toys['toy'] is the module."""
    folder = tmp_path / "mine" / "caption" / "captioners"
    folder.mkdir(parents=True)
    for name in ("toy", "teller"):
        (folder / f"{name}.py").write_text(TOY)
    monkeypatch.setenv(lookup.PLUGINS, str(tmp_path / "mine"))
    lookup.forget()
    made = {name: lookup.load(lookup.CAPTIONERS, name) for name in ("toy", "teller")}
    made["teller"].SAYS[:] = [RawCaption(tags=("1mug", "red mug"))]
    yield made
    monkeypatch.delenv(lookup.PLUGINS)
    lookup.forget()
    import sys

    for name in ("toy", "teller"):
        sys.modules.pop(f"lorakit.caption.captioners.{name}", None)


def reopened(project, **settings):
    return lorakit.open_project(project.folder, settings=settings, device="cpu")


def captions(project):
    return [r["caption"] for r in project.manifest.selected]


def test_tags_and_sentence_of_two_captioners_and_each_kept_by_itself(toys, cropped):
    project = cropped(**{"caption.captioners": ["teller", "toy"], "caption.prompt": "Describe it; seen: {tags}", "caption.style": "mixed"})
    lorakit.walk(project, last="trigger")
    count = len(project.manifest.selected)
    [caption, *others] = captions(project)
    assert caption["sentence"] == "A red mug stands on a table." and caption["tags"] == ["1mug", "red mug", "mug"]
    assert caption["by"] == "teller + toy" and [one["by"] for one in caption["readings"]] == ["teller", "toy"] and others
    asked = toys["toy"].ASKED
    assert asked[0][1:] == ("Describe it; seen: {tags}", [["1mug", "red mug"]] * asked[0][0]) and toys["teller"].ASKED[0][1] is None
    assert project.manifest.selected[0]["text"].startswith("A zwx mug stands on a table, 1mug")
    before = sum(n for n, *_ in toys["teller"].ASKED)
    other = reopened(project, **{"caption.prompt": "And now? {tags}"})
    lorakit.caption(other)
    assert sum(n for n, *_ in toys["teller"].ASKED) == before == count, "the tagger has read them already"
    assert sum(n for n, *_ in asked) == 2 * count
    lorakit.caption(reopened(project, **{"caption.captioners": [], "caption.captioner": "teller", "caption.prompt": None}))
    lorakit.caption(project)
    assert (sum(n for n, *_ in toys["teller"].ASKED), sum(n for n, *_ in asked)) == (count, 2 * count), "nor on the way back"
    assert captions(project)[0]["by"] == "teller + toy"


def test_a_photo_that_one_of_two_cannot_read_fails_with_its_reason(toys, cropped, capsys):
    toys["toy"].SAYS[:] = [NoCaption("it refused: 'no'"), RawCaption("A mug.")]
    project = cropped(**{"caption.captioners": ["teller", "toy"], "caption.batch_size": 8})
    lorakit.walk(project, last="caption")
    assert "no caption, left out (toy: it refused: 'no')" in capsys.readouterr().err
    failed = [r for r in project.manifest.selected if "caption" in r.get("failed", {})]
    assert len(failed) == 1 and not failed[0].get("caption")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ({"caption.captioners": ["teller", "teller"]}, "teller stands in it twice"),
        ({"caption.captioners": ["teller", "toyy"]}, "did you mean 'toy'"),
        ({"caption.captioner": "toy", "caption.prompt": "{tags}?"}, "no tagger reads before"),
        ({"caption.captioners": {"teller": "", "florence2": "/nowhere"}}, "no such folder"),
    ],
)
def test_what_cannot_be_is_said_before_any_photo_is_read(toys, cropped, words, line):
    with pytest.raises(LorakitError, match=line):
        lorakit.walk(cropped(**words), last="caption")
    assert not toys["teller"].ASKED


def test_answers_that_were_stopped_are_said_and_read_anew_for_a_base_that_reads_more(toys, cropped, capsys):
    toys["toy"].SAYS[:] = [RawCaption("A mug.", cut=True), RawCaption("A mug on a table.")]
    project = cropped(**{"caption.captioner": "toy", "caption.batch_size": 8})
    lorakit.walk(project, last="caption")
    count = len(project.manifest.selected)
    assert f"1 of {count} answers were stopped by the limit of tokens" in capsys.readouterr().err
    asked = toys["toy"].ASKED
    longer = reopened(project, **{"caption.token_budget": 512})
    lorakit.caption(longer)
    assert [n for n, *_ in asked] == [count, 1], "only the one that was stopped"
    lorakit.caption(longer)
    lorakit.caption(reopened(project, **{"caption.token_budget": 75}))
    assert len(asked) == 2, "and what fits in the larger one is there for the smaller"
    assert lorakit.settings.convert("caption.max_tokens", "auto", "here") is None


def test_lines_that_are_torn_or_odd_lose_themselves_alone(tmp_path):
    kept = Readings(tmp_path)
    kept.keep(
        [("a", "toy", RawCaption("A mug.", ("mug",)), None), ("b", "toy", RawCaption("B.", cut=True), {"luma": [1, 2, 3], "colours": {}})],
        75,
    )
    with open(tmp_path / "readings.jsonl", "ab") as file:
        file.write(b'{"key": "c", "sentence": "torn')
    again = Readings(tmp_path)
    again.keep([("d", "toy", RawCaption("D."), None)], 75)
    (tmp_path / "readings.jsonl").open("a").write('[1]\n{"key": "e", "sentence": "E.", "tags": 7}\n')
    last = Readings(tmp_path)
    assert [last.get(key, 75) is not None for key in "abcde"] == [True, True, False, True, False]
    assert last.get("a", 75) == (RawCaption("A mug.", ("mug",)), None) and last.get("b", 75)[0].cut
    assert last.get("b", 512) is None and last.get("a", 512) is not None


def test_a_page_to_choose_between_captioners_blind(toys, cropped):
    toys["toy"].SAYS[:] = [RawCaption("A red mug."), NoCaption("it refused: <no>")]
    project = cropped()
    done = CliRunner().invoke(group, ["caption", str(project.folder), "--compare", "toy,teller", "--count", "3", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    page = (project.folder / "compare.html").read_text(encoding="utf-8")
    blind = page[: page.index("<script>")]
    assert page.count("<article") == 3 and page.count("data:image/jpeg;base64") == 3 and "teller" not in page and "toy<" not in blind
    assert "no caption: it refused: &lt;no&gt;" in page and "1mug" in page
    key = json.loads(base64.b64decode(re.search(r'atob\("([^"]+)"\)', page)[1]))
    assert [one["name"] for one in key["captioners"]] == ["toy", "teller"] and len(key["order"]) == 3
    assert all(sorted(order) == [0, 1] for order in key["order"])
    opened = reopened(project)
    assert not any(r.get("caption") for r in opened.manifest), "the set's captions stay as they are"
    before = sum(n for n, *_ in toys["teller"].ASKED)
    lorakit.caption(reopened(project, **{"caption.captioner": "teller"}))
    assert sum(n for n, *_ in toys["teller"].ASKED) == len(opened.manifest.selected) and before == 3, "what was compared is known"
    for names in ("toy", "toy,toy"):
        done = CliRunner().invoke(group, ["caption", str(project.folder), "--compare", names])
        assert isinstance(done.exception, LorakitError) and "name two to 8 different captioners" in str(done.exception)


def test_captioner_of_the_command_takes_the_place_of_several(toys, cropped):
    project = cropped(**{"caption.captioners": ["teller", "toy"]})
    from lorakit.cli.options import settings_from

    assert reopened(project, **settings_from((), captioner="toy")).settings.caption.readers == (("toy", None),)
    assert reopened(project, **settings_from((), captioner="toy,teller")).settings.caption.readers == (("toy", None), ("teller", None))
    assert settings_from((), captioner=None) == {}


def test_the_offline_captioner_is_silent_where_it_is_not_sure():
    import numpy as np

    names = [f"thing {n}" for n in range(1000)]
    chances = np.zeros(1000)
    chances[[500, 600]] = 0.45, 0.3
    assert imagenet.surest_names(chances, names) == []
    chances[500] = 0.6
    assert imagenet.surest_names(chances, names) == ["thing 500"]
    chances[:] = 0
    chances[151:156] = 0.1
    assert imagenet.surest_names(chances, names) == ["dog"]


def test_of_several_captioners_missing_weights_are_given_where_they_are_read(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    card = replace(card_of("wd_tagger"), hub="nobody/has-this-tagger")
    stage = import_module("lorakit.caption.caption")
    monkeypatch.setattr(stage, "card_of", lambda name: card)
    with pytest.raises(WeightsMissing) as error:
        stage.open_reader(
            lorakit.settings.resolve([("--set", {"caption.captioners": ["wd_tagger", "toy"]})]).caption, "wd_tagger", None, "cpu"
        )
    assert "--captioner ...,wd_tagger=FOLDER" in str(error.value) and "caption.weights" not in str(error.value)
