"""A visit: its chance comes from its number alone, its noise has the options that are set, sizes are as SDXL was trained."""

import pytest
import torch

from lorakit import open_project
from lorakit.bases.load import load_family
from lorakit.settings import Train
from lorakit.text.words import count_word
from lorakit.train import lora
from lorakit.train.cache import OTHER_THINGS, cache, load_latents, load_text, preserved_texts
from lorakit.train.loss import BatchLoss, picture_sizes, preservation_loss, weighted_loss
from lorakit.train.noise import draw_noise

SHAPE = torch.Size((200, 4, 16, 16))


def noise(**settings):
    return draw_noise(SHAPE, Train(**settings), torch.Generator().manual_seed(1))


def test_a_visit_depends_on_its_number_alone(make_dataset):
    project = make_dataset()
    photos = cache(project)[:1]
    family = load_family(project)
    lora.add_lora(family, project.settings.train)
    visit = BatchLoss(project, family)
    with torch.no_grad():
        first, other, again = (visit.loss(photos, number).item() for number in (3, 4, 3))
    assert first == again != other


def test_a_photos_chance_is_its_own_whoever_draws_it_and_old_runs_draw_as_they_did(trained):
    settings = {"train.multires_noise": 0.3, "train.input_perturbation": 0.1}
    project = open_project(trained.folder, settings=settings, device="cpu")
    record = project.manifest.selected[0]
    batch, family = [record] * 3, load_family(project)
    visit = BatchLoss(project, family)
    whole, some = visit.draw(batch, 5), visit.draw(batch, 5, [2, 0])
    for name in ("latents", "noise", "input_noise", "timesteps", "sizes"):
        assert torch.equal(getattr(whole, name)[[2, 0]], getattr(some, name)), name
    assert len({float(noise.sum()) for noise in whole.noise}) == 3
    assert all(noise.std().item() == pytest.approx(1, rel=1e-5) for noise in whole.noise)

    by_batch = BatchLoss(project, family, by_photo=False)
    old, second = by_batch.draw(batch, 5), by_batch.draw(batch, 5, [1])
    generator = torch.Generator().manual_seed(project.settings.train.seed * 1_000_003 + 5)  # as 0.1.0 had it
    moments = load_latents(project, record)
    mean, std = (torch.stack([moments[name]] * 3) for name in ("mean", "std"))
    assert torch.equal(old.latents, mean + std * torch.randn(mean.shape, generator=generator))
    assert torch.equal(old.noise, draw_noise(mean.shape, project.settings.train, generator))
    assert torch.equal(old.timesteps, torch.randint(0, 1000, (3,), generator=generator))
    assert torch.equal(old.noise[1:2], second.noise) and torch.equal(old.timesteps[1:2], second.timesteps)


def test_what_stays_the_bases_is_the_empty_text_the_class_and_other_things(trained):
    """The photo itself is learned with its own text, whatever is dropped: with an empty one guidance would push the subject away."""
    project = open_project(trained.folder, settings={"train.preservation": 1.0, "train.caption_dropout": 0.4}, device="cpu")
    photos = cache(project)
    visit, trigger = BatchLoss(project, load_family(project)), project.settings.trigger
    untold = {record["hash"]: preserved_texts(project, record) for record in photos}
    for own, *others in untold.values():
        assert len(set(others)) == 3 and not count_word(own, trigger.word)
        for other in others:
            assert own == other.replace(next(thing for thing in OTHER_THINGS if thing in other), trigger.class_word)
            assert not any(count_word(other, word) for word in (trigger.word, trigger.class_word))

    seen = []
    for number in range(100):
        drawn = visit.draw(photos[:1], number)
        assert torch.equal(drawn.text["states"][0], load_text(project, photos[0]["text"])["states"])
        texts = ["", *untold[photos[0]["hash"]]]
        seen.append(
            next(i for i, text in enumerate(texts) if torch.equal(drawn.preserved["states"][0], load_text(project, text)["states"]))
        )
    shares = [seen.count(i) / len(seen) for i in range(5)]
    assert shares == pytest.approx([0.4, 0.3, 0.1, 0.1, 0.1], abs=0.1)


def test_sizes_are_of_the_photo_and_the_crop_in_pixels_of_the_picture():
    record = {"measures": {"size": {"width": 640, "height": 512}}, "crop": {"box": [64, 0, 576, 512], "bucket": [64, 64]}}
    assert picture_sizes(record) == (512, 640, 0, 8, 64, 64)


def test_noise_offset_shifts_whole_channels():
    means = (noise(noise_offset=0.5) - noise()).flatten(2)
    assert torch.allclose(means.std(dim=2), torch.zeros(SHAPE[:2]), atol=1e-5)  # the same shift all over a channel
    assert means.mean(dim=2).std().item() == pytest.approx(0.5, rel=0.1)


def test_multires_noise_has_variance_one_and_neighbours_alike():
    plain, pyramid = noise(), noise(multires_noise=0.5)
    assert pyramid.std().item() == pytest.approx(1.0, rel=1e-3)
    for found, alike in ((plain, False), (pyramid, True)):
        assert ((found[..., 1:] * found[..., :-1]).mean().item() > 0.1) is alike


def test_huber_is_the_squared_error_when_small_and_forgives_when_large():
    zero, weight = torch.zeros(1, 4), torch.ones(1)
    small, large = torch.full((1, 4), 1e-3), torch.full((1, 4), 10.0)
    assert weighted_loss(small, zero, weight, "huber").item() == pytest.approx(1e-6, rel=1e-3)
    assert weighted_loss(large, zero, weight, "huber") < 0.05 * weighted_loss(large, zero, weight, "mse")


def test_preservation_is_nothing_at_the_start_and_the_distance_from_the_base_later(load_tiny):
    family = load_tiny("sd15")
    generator = torch.Generator().manual_seed(0)
    noisy, text, at = (
        torch.randn(1, 4, 8, 8, generator=generator),
        {"states": torch.randn(1, 7, 32, generator=generator)},
        torch.tensor([500]),
    )
    with torch.no_grad():
        base = family.predict(noisy, at, text, None)
    parameters = lora.add_lora(family, Train(rank=2))
    assert preservation_loss(family, noisy, at, text, None) == 0
    with torch.no_grad():
        for parameter in parameters:
            parameter.normal_(std=0.1)
    loss = preservation_loss(family, noisy, at, text, None)
    loss.backward()
    assert loss.item() == pytest.approx(torch.nn.functional.mse_loss(family.predict(noisy, at, text, None), base).item(), rel=1e-5)
    assert all(parameter.requires_grad for parameter in parameters) and any(p.grad is not None and p.grad.any() for p in parameters)
