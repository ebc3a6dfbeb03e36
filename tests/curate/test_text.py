"""Writing in a picture: judged from what is stored; found by rapidocr where it is installed."""

import pytest
from PIL import Image, ImageDraw, ImageFont

import lorakit
from lorakit import lookup, pipeline
from lorakit.curate.check import measure
from lorakit.curate.checks import text
from lorakit.project import stamps
from lorakit.quality import verdicts
from lorakit.settings import resolve
from tests.conftest import draw_photo


def verdict(share: float, **settings) -> list[tuple]:
    record = {"id": "a", "measures": {"text": {"share": share, "words": ["© Jo"], "boxes": [[0, 0, 9, 9]]}}}
    return [(r.verdict, r.reason, r.value, r.threshold) for r in verdicts.judge(record, resolve([("test", settings)])).reasons]


def test_verdict_comes_from_the_stored_share():
    assert verdict(0.0) == verdict(0.003) == []
    assert verdict(0.02) == [("warn", "text", 0.02, 0.003)]
    assert verdict(0.9) == [("warn", "text", 0.9, 0.003)], "never rejected unless that is asked for"
    assert verdict(0.02, **{"check.text.reject_share": 0.01}) == [("reject", "text", 0.02, 0.01)]
    assert verdict(0.02, **{"check.text.max_share": 0.05}) == []


def test_without_the_extra_it_is_said_and_measured_once_it_is_there(curated, capsys, monkeypatch):
    monkeypatch.setattr(text, "NEEDS", ("no_such_package",))
    project = curated("check")
    assert "without text, for which there is an extra: pip install lorakit[ocr]" in capsys.readouterr().err
    record = next(iter(project.manifest))
    assert "text" not in record["measures"] and pipeline.progress_of(project, "check")["pending"] == 0
    monkeypatch.setattr(text, "NEEDS", ())
    project = lorakit.open_project(project.folder)
    assert pipeline.progress_of(project, "check")["done"] == 0
    stamp = stamps.check(project, record)
    monkeypatch.setattr(text, "NEEDS", ("no_such_package",))
    seen = {**record, "measures": {**record["measures"], "text": {"share": 0.0, "words": [], "boxes": []}}}
    assert stamps.check(project, seen) == stamp, "what was read on another machine stays"


def test_extra_and_packages_agree():
    from pathlib import Path

    listed = (Path(lorakit.__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    (line,) = [line for line in listed.splitlines() if line.startswith(f"{text.EXTRA} = ")]
    assert all(name in line for name in text.NEEDS)


@pytest.fixture(scope="module")
def reader():
    for name in text.NEEDS:
        pytest.importorskip(name)
    assert lookup.is_installed(text)


def written(words: str, at: tuple[int, int], size: int, opacity: int = 255) -> Image.Image:
    photo = draw_photo(3, (960, 720))
    layer = Image.new("RGBA", photo.size)
    ImageDraw.Draw(layer).text(
        at, words, font=ImageFont.load_default(size), fill=(255, 255, 255, opacity), stroke_fill=(0, 0, 0, opacity), stroke_width=1
    )
    photo.paste(layer, mask=layer)
    return photo


@pytest.mark.parametrize(
    ("words", "at", "size", "opacity"),
    [("shutterstock", (250, 300), 70, 150), ("WHEN IT WORKS", (120, 40), 80, 255), ("2004/07/12 14:33", (600, 660), 36, 255)],
)
def test_writing_is_found_where_it_stands(reader, make_photo, words, at, size, opacity):
    measures = measure(make_photo("a.jpg", image=written(words, at, size, opacity), quality=92))["measures"]
    found = measures["text"]
    read = "".join("".join(found["words"]).split())
    assert words.replace(" ", "")[:8] in read
    left, top, right, bottom = found["boxes"][0]
    assert abs(left - at[0]) < 30 and top < at[1] + size and bottom > at[1] + size // 2 and right > left
    assert found["share"] > 0.003
    assert "text" in [r.reason for r in verdicts.judge({"id": "a", "measures": measures}, resolve([])).reasons]


def test_photos_without_writing_have_none(reader, make_photo):
    for seed in range(6):
        assert measure(make_photo("a.jpg", seed, (800, 640)))["measures"]["text"] == {"share": 0.0, "words": [], "boxes": []}
    for size in ((1, 1), (2, 3000), (40, 40)):
        assert measure(make_photo("a.png", image=Image.new("RGB", size, (9, 80, 20))))["measures"]["text"]["share"] == 0.0
