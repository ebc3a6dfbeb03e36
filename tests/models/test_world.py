"""The world of `mini`: true captions, shapes that fit their bounds, and pictures that show what they say."""

import numpy as np
import pytest

from models.mini.figures import FAKES, NAMED, ROLES, TOY, distance, draw_figure, is_toy, number_of, toy_name
from models.mini.geometry import GROUND, SKY, Camera, Placed, march
from models.mini.shading import shade
from models.mini.shapes import BOUND_CENTRE, BOUND_RADIUS, SHAPES
from models.mini.styles import STYLES
from models.mini.world import FIGURE_PAINTS, OBJECTS, SUBJECTS, Look, Scene, caption, draw_look, draw_paints, draw_scene, tell_parts

LIGHTS = ((np.array([0.4, -0.5, 0.77]), 0.07), (np.array([-0.5, -0.4, 0.77]), 0.3))


def look_at(kind, colour="red", surface="concrete", side=48):
    """(picture, buffers) of one thing in a plain setting."""
    scene = Scene((Placed(kind, yaw=0.4),), Camera(), LIGHTS)
    buffers = march(scene.things, scene.camera, scene.lights, side, side)
    colour = "red+teal+white" if is_toy(kind) else colour
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
    seen, named_toys = set(), 0
    for _ in range(300):
        scene = draw_scene(rng)
        look = draw_look(rng, scene)
        words = caption(scene, look, rng)
        seen.add(words)
        named = words.replace(",", " ").split()
        kinds = [TOY if is_toy(thing.kind) else thing.kind for thing in scene.things]
        assert [w for w in named if w in (*OBJECTS, TOY)] == kinds
        paints = [w for w in named if w in FIGURE_PAINTS and f"{w} table" not in words]
        true = {paint for colour in look.colours for paint in colour.split("+")}
        assert set(paints) <= true | ({"grey", "black", "white"} if TOY in kinds else set())
        for thing, colour in zip(scene.things, look.colours, strict=True):
            if is_toy(thing.kind):
                said = {fact.split()[-1]: fact.split() for fact in tell_parts(thing.kind, colour)}
                parts = [word for word in named if word in ROLES]
                assert set(parts) <= set(said)
                assert all(named[named.index(part) - 1] in said[part] for part in parts)
                named_toys += number_of(thing.kind) < NAMED
    assert len(seen) > 280
    assert named_toys > 20


def test_named_figures_have_names_shapes_and_paints_of_their_own():
    names = [toy_name(number) for number in range(NAMED)]
    assert len(set(names)) == NAMED
    assert not set(names) & {"zwx", TOY, *FIGURE_PAINTS, *OBJECTS}
    rng = np.random.default_rng(4)
    assert len({draw_paints(rng, 17) for _ in range(20)}) == 1
    assert len({draw_paints(rng, NAMED + 17) for _ in range(20)}) > 15


def test_no_figure_wears_the_robots_paints():
    rng = np.random.default_rng(5)
    paints = [draw_paints(rng, number).split("+") for number in range(3000)]
    assert not [p for p in paints if p[0] == "blue" and "orange" in p]
    assert {p[0] for p in paints} == set(FIGURE_PAINTS)


def test_the_map_of_parts_follows_the_robot_and_what_is_taken_from_it():
    for kind, gone in (("robot", ()), ("robot-head", ("head", "eyes", "antenna")), ("robot-arms", ("arms", "hands"))):
        scene = Scene((Placed(kind),), Camera(target=(0, 0, 0.5), distance=2.6), LIGHTS)
        roles = march(scene.things, scene.camera, scene.lights, 64, 64).role
        seen = {ROLES[k] for k in np.unique(roles)}
        wanted = {"body", "head", "eyes", "panel", "arms", "hands", "feet", "antenna"}
        assert wanted - set(gone) <= seen
        assert not seen & set(gone)


@pytest.mark.parametrize("kind", FAKES)
def test_fakes_stand_within_their_bound(kind):
    points = np.random.default_rng(0).uniform(-1.5, 1.5, (60000, 3)).astype(np.float32)
    inside = points[distance(kind, points) < 0]
    assert np.linalg.norm(inside - BOUND_CENTRE, axis=-1).max() <= BOUND_RADIUS
    assert -0.03 < inside[:, 2].min() < 0.15


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
    parts = [{piece.role for piece in draw_figure(number)} for number in range(200)]
    for role, share in {"eyes": 0.88, "antenna": 0.4, "panel": 0.4, "arms": 0.8, "feet": 0.85}.items():
        assert abs(np.mean([role in some for some in parts]) - share) < 0.12, role
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
