"""The report: one page with every photo's reason, the curve, the samples and the settings."""

import math
import re

import lorakit
from lorakit.report.charts import draw_charts


def page_of(project):
    return lorakit.report(project).read_text(encoding="utf-8")


def test_report_of_a_training_shows_all_parts(trained):
    page = page_of(trained)
    for part in ("The LoRA", "Without and with the LoRA", "Loss", "Samples while training", "The chosen set", "Settings"):
        assert f"<h2>{part}" in page
    assert "zwx_object_tiny-random.safetensors" in page and "polyline" in page
    for record in trained.manifest.selected:
        assert record["file"] in page and record["text"] in page
    assert page.count("data:image/jpeg") >= 4 + 2 * 2  # photos; two prompts without and with the LoRA
    assert "base tiny-random" in page  # the layer of a setting


def test_texts_that_fit_worst_come_first(tiny_clip, make_project):
    project = make_project(**{"caption.clip": str(tiny_clip), "caption.min_facet": 0.0})
    lorakit.walk(project, last="dataset")
    table = page_of(project).split("<h2>The chosen set and its texts")[1].split("</table>")[0]
    scores = [float(score) for score in re.findall(r"fits (-?\d\.\d\d)", table)]
    assert len(scores) == 6 and scores == sorted(scores) and scores[0] < scores[-1]
    assert "fit their photo worst come first" in table and "of 75 tokens" in table and "seen: " in table
    records = sorted(project.manifest.selected, key=lambda r: r["trigger"]["agreement"])
    assert [r["file"] for r in records] == re.findall(r"<b>(\S+)</b>", table)


def test_report_needs_no_other_file(trained):
    addresses = re.findall(r'(?:src|href)="([^"]{0,40})', page_of(trained))
    assert addresses and all(address.startswith("data:") for address in addresses)


def test_report_before_training_groups_rejected_photos_and_copies(tmp_path, photo_folder, make_photo):
    make_photo("<b>tiny.png", seed=9, size=(90, 60))
    make_photo("copy.jpg", seed=0, quality=40)
    (photo_folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    project = lorakit.new_project(tmp_path / "p", photo_folder, base="tiny-random")
    lorakit.walk(project, last="crop")
    page = page_of(project)
    assert "too_small (1)" in page and "damaged (1)" in page and "Copies: 1 photos" in page
    assert "&lt;b&gt;tiny.png" in page and "<b>tiny.png" not in page
    assert "cannot be shown" in page


def test_curve_is_drawn_raw_and_smoothed():
    metrics = [{"step": n + 1, "loss": 1 - n / 400, "grad_norm": math.inf if n else 1.0, "rate": 1e-4} for n in range(200)]
    assert draw_charts(metrics[:1]) == []
    ((series, drawing),) = draw_charts(metrics)  # a norm that overflows and a rate that stays have nothing to show
    assert series.key == "loss" and drawing.count("polyline") == 2
    told = [{**line, "grad_norm": line["loss"], "rate": 1e-4 / line["step"]} for line in metrics]
    told[-1] |= {"validation": 0.2}
    told[-9] |= {"validation": 0.3}
    drawn = draw_charts([{"step": 0, "loss": 0.5}, *told])
    assert [series.key for series, _ in drawn] == ["loss", "validation", "grad_norm", "rate"]
    assert re.search(r'points="(8\d\d\.\d)', drawn[1][1])  # at the steps where it was measured, near the end
    assert drawn[1][1].count("polyline") == 1  # held-out loss does not scatter: no course beside it
