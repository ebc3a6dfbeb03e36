"""The report's part on photos: rejected ones by reason, copies with why the other is kept, the crops of the chosen."""

from lorakit.report.report import photo_part, render
from tests.conftest import draw_photo


def test_page_tells_of_copies_rejects_and_crops(curated, make_photo):
    make_photo("copy.jpg", image=draw_photo(1).resize((560, 448)), quality=50)
    make_photo("tiny <b>.jpg", 33, (100, 90))
    project = curated("crop", **{"check.size.min_side": 400, "check.size.good_side": 400})
    part = photo_part(project)
    (group,) = part["copies"]
    card, why = group["others"][0]
    assert (group["kept"]["file"], card["file"]) == ("photo_1.jpg", "copy.jpg") and "wide 640 over 560" in why
    assert part["rejected"]["too_small"]["count"] == 1
    assert all(card["picture"].startswith("data:image/jpeg") and card["frame"] for card in part["chosen"])
    assert all(left + width <= 100.01 and top + height <= 100.01 for left, top, width, height in (c["frame"] for c in part["chosen"]))
    page = render(project, None)
    assert "tiny &lt;b&gt;.jpg" in page and "tiny <b>" not in page
