"""Masked loss: a mask beside a photo, or the photo's transparency, goes through the crop to the latents and into the loss."""

import pytest
import torch
from PIL import Image

from lorakit import open_project, pipeline
from lorakit.bases.load import load_family
from lorakit.errors import LorakitError
from lorakit.settings import Train
from lorakit.train import lora
from lorakit.train.cache import cache, load_mask
from lorakit.train.loss import BatchLoss, weighted_loss

MASKED = {"train.masked_loss": True}


def half_white(size):
    """White on its left half."""
    mask = Image.new("L", size, 0)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    return mask


@pytest.fixture
def masked_folder(photo_folder):
    """photo_0 has a mask beside it, at half its size; photo_2 is a PNG, transparent on its right half; the others have none."""
    half_white((320, 256)).save(photo_folder / "photo_0_mask.png")
    with Image.open(photo_folder / "photo_2.jpg") as photo:
        clear = photo.convert("RGBA")
    clear.putalpha(half_white(clear.size))
    clear.save(photo_folder / "photo_2.png")
    (photo_folder / "photo_2.jpg").unlink()
    (photo_folder / "photo_2.txt").write_text("a mug, photo_2", encoding="utf-8")
    return photo_folder


@pytest.mark.parametrize("kind", ["mse", "huber"])
def test_the_masked_loss_is_the_weighted_mean_of_the_errors(kind):
    torch.manual_seed(0)
    found, wanted, share, weight = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.rand(2, 1, 4, 4), torch.tensor([0.5, 2.0])
    total = 0.0
    for n in range(2):
        above = below = 0.0
        for c in range(3):
            for y in range(4):
                for x in range(4):
                    error = (found[n, c, y, x] - wanted[n, c, y, x]).item()
                    error = error**2 if kind == "mse" else 0.2 * ((error**2 + 0.01) ** 0.5 - 0.1)
                    above, below = above + share[n, 0, y, x].item() * error, below + share[n, 0, y, x].item()
        total += weight[n].item() * above / below / 2
    assert weighted_loss(found, wanted, weight, kind, share).item() == pytest.approx(total, rel=1e-5)
    assert weighted_loss(found, wanted, weight, kind, torch.ones(2, 1, 4, 4)).item() == pytest.approx(
        weighted_loss(found, wanted, weight, kind).item(), rel=1e-6
    )


def test_what_lies_outside_the_mask_has_no_gradient():
    found, share = torch.randn(1, 3, 4, 4, requires_grad=True), torch.zeros(1, 1, 4, 4)
    share[..., :2] = 1
    weighted_loss(found, torch.zeros(1, 3, 4, 4), torch.ones(1), "mse", share).backward()
    assert not found.grad[..., 2:].any() and found.grad[..., :2].all()


def test_masks_go_through_the_crop_to_the_latents_and_into_the_loss(masked_folder, make_dataset):
    project = make_dataset(**MASKED)
    photos = {record["file"]: record for record in cache(project)}
    assert "photo_0_mask.png" not in {record["file"] for record in project.manifest}
    assert sorted(path.name for path in project.masks_folder.iterdir()) == ["photo_0.png", "photo_2.png"]
    for name, record in photos.items():
        mask = load_mask(project, record)
        width, height = (side // 8 for side in record["crop"]["bucket"])
        assert mask.shape == (1, height, width)
        if name not in ("photo_0.jpg", "photo_2.png"):
            assert (mask == 1).all()
            continue
        left, _, right, _ = record["crop"]["box"]
        border = (record["measures"]["size"]["width"] / 2 - left) / (right - left) * width  # in latent pixels
        columns = torch.arange(width)
        assert (mask[0][:, columns + 1 <= border - 0.2] == 1).all() and (mask[0][:, columns >= border + 0.2] == 0).all()
        assert mask.mean().item() == pytest.approx(border / width, abs=0.02)

    batch = [photos["photo_0.jpg"]]
    losses = {}
    for name, changes in (("masked", {}), ("outside", {"train.mask_outside": 1.0}), ("plain", {"train.masked_loss": False})):
        opened = open_project(project.folder, settings=changes, device="cpu")
        family = load_family(opened)
        lora.add_lora(family, Train(rank=2))
        with torch.no_grad():
            losses[name] = BatchLoss(opened, family).loss(batch, 3).item()
        open_project(project.folder, settings={"train.mask_outside": 0.0, "train.masked_loss": True}, device="cpu")
    assert losses["outside"] == pytest.approx(losses["plain"], rel=1e-5)
    assert abs(losses["masked"] - losses["plain"]) > 1e-3 * losses["plain"]


def test_a_repainted_mask_is_taken_up(masked_folder, make_dataset):
    project = make_dataset(**MASKED)
    before = load_mask(project, cache(project)[0])
    half_white((320, 256)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(masked_folder / "photo_0_mask.png")
    again = open_project(project.folder, device="cpu")
    pipeline.walk(again, last="dataset")
    assert torch.allclose(before + load_mask(again, cache(again)[0]), torch.ones(1), atol=0.02)


def test_no_mask_at_all_and_a_black_one_are_one_line_each(photo_folder, make_dataset):
    with pytest.raises(LorakitError, match="none of the 6 photos has a mask; put photo_mask.png beside photo.jpg"):
        cache(make_dataset("none", **MASKED))
    Image.new("L", (640, 512), 0).save(photo_folder / "photo_1-masklabel.png")
    with pytest.raises(LorakitError, match="photo_1.jpg: its mask is black all over the crop"):
        cache(make_dataset("black", **MASKED))


def test_a_mask_of_another_shape_leaves_its_photo_out_with_the_reason(photo_folder, make_dataset):
    half_white((300, 300)).save(photo_folder / "photo_0_mask.png")
    project = make_dataset(**MASKED)
    (failed,) = [record for record in project.manifest.selected if record.get("failed")]
    assert failed["file"] == "photo_0.jpg" and "photo_0_mask.png is 300x300 for a photo of 640x512" in failed["failed"]["dataset"]
