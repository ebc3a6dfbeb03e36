"""The world of `mini`: true captions, shapes that fit their bounds, and pictures that show what they say."""

import numpy as np
import pytest

from models.mini.geometry import GROUND, SKY, Camera, Placed, march
from models.mini.shading import shade
from models.mini.shapes import BOUND_CENTRE, BOUND_RADIUS, SHAPES, TOY, distance
from models.mini.styles import STYLES
from models.mini.world import COLOURS, OBJECTS, SUBJECTS, Look, Scene, caption, draw_look, draw_scene

LIGHTS = ((np.array([0.4, -0.5, 0.77]), 0.07), (np.array([-0.5, -0.4, 0.77]), 0.3))


def look_at(kind, colour="red", surface="concrete", side=48):
    """(picture, buffers) of one thing in a plain setting."""
    scene = Scene((Placed(kind, yaw=0.4),), Camera(), LIGHTS)
    buffers = march(scene.things, scene.camera, scene.lights, side, side)
    return shade(scene, Look((colour,), ("matte",), surface, "studio light"), buffers), buffers


@pytest.mark.parametrize("kind", SHAPES)
def test_shape_stands_on_the_ground_within_its_bound(kind):
    points = np.random.default_rng(0).uniform(-1.5, 1.5, (60000, 3)).astype(np.float32)
    inside = points[distance(kind, points) < 0]
    assert len(inside) > 20
    assert np.linalg.norm(inside - BOUND_CENTRE, axis=-1).max() <= BOUND_RADIUS
    assert inside[:, 2].min() > -0.03
    assert inside[:, 2].min() < 0.15


@pytest.mark.parametrize("kind", SHAPES)
def test_every_thing_is_seen_with_ground_around_it(kind):
    picture, buffers = look_at(kind)
    thing = buffers.label >= 16
    assert 0.04 < thing.mean() < 0.7
    assert (buffers.label == GROUND).any()
    assert picture.shape == (48, 48, 3)
    assert np.isfinite(picture).all()
    assert picture.min() >= 0
    assert picture.max() <= 1


@pytest.mark.parametrize("colour", ["red", "green", "blue"])
def test_paint_has_the_colour_it_is_called(colour):
    picture, buffers = look_at("cube", colour)
    mean = picture[buffers.label >= 16].mean(0)
    assert mean.argmax() == ["red", "green", "blue"].index(colour)


def test_sky_is_above_the_horizon():
    camera = Camera(elevation=0.1)
    buffers = march((Placed("ball"),), camera, LIGHTS, 32, 32)
    assert (buffers.label[0] == SKY).all()
    assert (buffers.label[-1] == GROUND).all()


def test_thing_shadows_the_ground():
    _, buffers = look_at("cube")
    ground = buffers.label == GROUND
    assert buffers.lit[ground, 0].min() < 0.1
    assert buffers.lit[ground, 0].max() == 1.0


def test_captions_are_true_and_varied():
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(200):
        scene = draw_scene(rng)
        look = draw_look(rng, scene)
        words = caption(scene, look, rng)
        seen.add(words)
        named = words.replace(",", " ").split()
        kinds = [TOY if thing.kind.startswith(TOY) else thing.kind for thing in scene.things]
        assert [w for w in named if w in (*OBJECTS, TOY)] == kinds
        paints = [w for w in named if w in COLOURS and f"{w} table" not in words]
        assert set(paints) <= set(look.colours)
    assert len(seen) > 195


def test_base_training_never_meets_a_held_out_subject():
    rng = np.random.default_rng(2)
    kinds = {thing.kind for _ in range(300) for thing in draw_scene(rng).things}
    toys = {kind for kind in kinds if kind.startswith(TOY)}
    assert kinds - toys == set(OBJECTS)
    assert len(toys) > 20
    assert not kinds & set(SUBJECTS)


def test_toys_differ_and_fit_their_bounds():
    looks = [look_at(f"{TOY}{number}")[0] for number in range(6)]
    for i, picture in enumerate(looks):
        assert all(np.abs(picture - other).mean() > 0.01 for other in looks[:i])
    rng = np.random.default_rng(3)
    away = rng.normal(size=(400, 3)).astype(np.float32)
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    shell = BOUND_CENTRE + 1.02 * BOUND_RADIUS * away
    for number in range(200):
        outside = distance(f"{TOY}{number}", shell)[shell[:, 2] > 0]
        assert outside.min() > 0, number


def test_same_seed_draws_the_same_world():
    first, second = (draw_scene(np.random.default_rng(7)) for _ in range(2))
    assert first.things == second.things
    assert first.camera == second.camera


@pytest.mark.parametrize("style", STYLES)
def test_style_changes_the_picture(style):
    picture, buffers = look_at("house")
    styled = STYLES[style](picture, buffers)
    assert styled.shape == picture.shape
    assert styled.min() >= 0
    assert styled.max() <= 1
    assert np.abs(styled - picture).mean() > 0.04
