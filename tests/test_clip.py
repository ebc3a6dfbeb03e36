"""open_clip with a tiny random model in the hub's format, through the code that loads real ones."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lorakit import clip
from lorakit.errors import LorakitError
from models import mini


def test_vectors_tell_texts_and_pictures_apart(tiny_clip):
    model = clip.Clip(str(tiny_clip), "caption.clip", "cpu")
    red, blue = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))
    seen, said = np.stack(list(model.see([red, blue, red]))), model.say(["a red square", "a blue square"])
    assert seen.shape == (3, 16) and said.shape == (2, 16) and seen.dtype == said.dtype == np.float32
    assert np.allclose(np.linalg.norm(seen, axis=1), 1, atol=1e-5) and np.allclose(np.linalg.norm(said, axis=1), 1, atol=1e-5)
    assert np.allclose(seen[0], seen[2], atol=1e-6)
    assert len({round(float(value), 5) for value in (seen[:2] @ said.T).ravel()}) == 4


def test_more_pictures_than_a_batch_come_out_in_order(tiny_clip, monkeypatch):
    model = clip.Clip(str(tiny_clip), "caption.clip", "cpu")
    pictures = [Image.new("RGB", (32, 32), (40 * i, 90, 255 - 40 * i)) for i in range(5)]
    whole = np.stack(list(model.see(pictures)))
    monkeypatch.setattr(clip, "BATCH", 2)
    assert np.allclose(np.stack(list(model.see(iter(pictures)))), whole, atol=1e-5)


def test_nothing_to_see_is_no_error(tiny_clip):
    assert list(clip.Clip(str(tiny_clip), "caption.clip", "cpu").see([])) == []


def test_folder_that_is_no_open_clip_model(tmp_path):
    with pytest.raises(LorakitError, match="embed.clip=.*no open_clip_config.json in it"):
        clip.Clip(str(tmp_path), "embed.clip", "cpu")


def test_hub_name_that_cannot_be_reached_is_one_line():
    with pytest.raises(LorakitError, match=r"open_clip .*me/clip.* are not on this machine.*--set embed.clip=") as error:
        clip.Clip("hf-hub:me/clip", "embed.clip", "cpu")
    assert "\n" not in str(error.value)


def test_a_picture_is_seen_the_same_whoever_is_in_its_batch():
    """Held on a ResNet, whose batch norms would mix what is seen together."""
    model = clip.Clip(str(Path(mini.__path__[0]) / "clip"), "embed.clip", "cpu")
    red, blue = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))
    (alone,), (beside, _) = model.see([red]), model.see([red, blue])
    assert np.allclose(alone, beside, atol=1e-5)
