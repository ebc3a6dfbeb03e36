"""The report's part on photos: rejected ones by reason, copies with why the other is kept, the crops of the chosen."""

from lorakit.report.report import photo_part, render
from tests.conftest import draw_photo


def test_page_tells_of_copies_rejects_and_crops(curated, make_photo):
    make_photo("copy.jpg", image=draw_photo(1).resize((560, 448)), quality=50)
    make_photo("tiny <b>.jpg", 33, (100, 90))
    project = curated("crop", **{"check.size.min_side": 400, "check.size.good_side": 400})
    part = photo_part(project)
    (group,) = part["copies"]["groups"]
    (copy,) = group["copies"]
    assert (group["kept"].file, copy.file) == ("photo_1.jpg", "copy.jpg") and "560 px wide (kept: 640)" in copy.note
    assert part["rejected"]["count"] == 1 and part["rejected"]["cells"][0].file == "tiny <b>.jpg"
    assert all(photo["cell"].picture.startswith("data:image/jpeg") for photo in part["chosen"])
    frames = [photo["frame"] for photo in part["chosen"] if photo["frame"]]  # None where the crop is the whole photo
    assert all(left + width <= 100.01 and top + height <= 100.01 for left, top, width, height in frames)
    page = render(project, None)
    assert "tiny &lt;b&gt;.jpg" in page and "tiny <b>" not in page
