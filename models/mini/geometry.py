"""Ray-marches a scene once into geometry buffers; everything that light and paint change is left to `shading`.

A picture is 4 to 20 times cheaper to shade than to march, so one set of buffers serves many training pictures.
"""

from dataclasses import dataclass

import numpy as np

from models.mini.figures import distance, nearest_part
from models.mini.shapes import BOUND_CENTRE, BOUND_RADIUS

GROUND, SKY = 1, 0  # labels below 16 are not things; thing k has the labels 16 * (k + 1) + part
FAR = 60.0
AO_STEPS = (0.03, 0.08, 0.16, 0.28, 0.45)


@dataclass(frozen=True)
class Placed:
    """One thing on the ground."""

    kind: str
    x: float = 0.0
    y: float = 0.0
    yaw: float = 0.0  # radians
    scale: float = 1.0

    def to_local(self, points):
        """World points (N, 3) in the thing's own frame."""
        return ((points - np.float32([self.x, self.y, 0.0])) @ self.rotation()) / np.float32(self.scale)

    def rotation(self):
        """Rows are world axes, columns the thing's own."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.float32([[c, -s, 0], [s, c, 0], [0, 0, 1]])


@dataclass(frozen=True)
class Camera:
    """Looks at `target` from `distance` away; angles are radians."""

    target: tuple = (0.0, 0.0, 0.45)
    azimuth: float = 0.0
    elevation: float = 0.4
    distance: float = 3.2
    focal: float = 3.2  # in halves of the picture's shorter side
    roll: float = 0.0

    def eye(self):
        c = np.cos(self.elevation)
        away = np.array([np.sin(self.azimuth) * c, -np.cos(self.azimuth) * c, np.sin(self.elevation)])
        return np.float32(np.array(self.target) + self.distance * away)

    def rays(self, height, width):
        """Unit directions (H, W, 3) through the middle of each pixel."""
        forward = np.float32(self.target) - self.eye()
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0, 0, 1])
        right /= np.linalg.norm(right)
        up = np.cross(right, forward)
        c, s = np.cos(self.roll), np.sin(self.roll)
        right, up = c * right + s * up, c * up - s * right
        half = min(height, width) / 2
        u = (np.arange(width) + 0.5 - width / 2) / half
        v = (height / 2 - np.arange(height) - 0.5) / half
        rays = forward * self.focal + u[None, :, None] * right + v[:, None, None] * up
        return np.float32(rays / np.linalg.norm(rays, axis=-1, keepdims=True))


@dataclass
class Buffers:
    """What the camera sees: label (H, W) uint8, normal (H, W, 3), depth (H, W), in 0..1 the share of ambient light
    that arrives (H, W) and of each light (H, W, lights), and which of `figures.ROLES` lies at each pixel (H, W) uint8."""

    label: np.ndarray
    normal: np.ndarray
    depth: np.ndarray
    occlusion: np.ndarray
    lit: np.ndarray
    role: np.ndarray


def _span(thing, origins, rays):
    """Where rays enter and leave the thing's bounding sphere, as (enter, leave); leave < enter where they miss it."""
    centre = np.float32([thing.x, thing.y, 0]) + BOUND_CENTRE * np.float32(thing.scale)
    to_centre = centre - origins
    along = (to_centre * rays).sum(-1)
    gap = (to_centre * to_centre).sum(-1) - along * along
    half = np.sqrt(np.maximum((BOUND_RADIUS * thing.scale) ** 2 - gap, 0.0))
    missed = (gap > (BOUND_RADIUS * thing.scale) ** 2) | (along + half < 0)
    return np.maximum(along - half, 0.0), np.where(missed, -1.0, along + half)


def _march(thing, origin, rays, near, steps=72, tolerance=0.002):
    """The depth at which each ray (N, 3) meets the thing, or FAR."""
    start, leave = _span(thing, origin[None], rays)
    depth = np.full(len(rays), FAR, np.float32)
    active = np.flatnonzero((leave > start) & (start < near))
    t = start[active].astype(np.float32)
    for _ in range(steps):
        if not len(active):
            break
        gap = distance(thing.kind, thing.to_local(origin + t[:, None] * rays[active])) * thing.scale
        t += gap * 0.95
        hit = gap < tolerance
        depth[active[hit]] = t[hit]
        going = ~hit & (t < leave[active])
        active, t = active[going], t[going]
    return depth


def _normals(thing, points, width=0.003):
    """Surface normals by central differences over a tetrahedron."""
    total = np.zeros_like(points)
    for corner in np.float32([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]]):
        total += corner * distance(thing.kind, thing.to_local(points + width * corner))[:, None]
    return total / np.maximum(np.linalg.norm(total, axis=-1, keepdims=True), 1e-6)


def _shadow(things, points, light, softness, steps=28):
    """How much of a light each point sees, 0..1: the narrowest gap that its ray passes (Quilez, "soft shadows")."""
    rays = np.broadcast_to(np.float32(light), points.shape)
    seen = np.ones(len(points), np.float32)
    for thing in things:
        start, leave = _span(thing, points, rays)
        active = np.flatnonzero((leave > start) & (seen > 0.01))
        t = np.maximum(start[active], 0.02).astype(np.float32)
        for _ in range(steps):
            if not len(active):
                break
            gap = distance(thing.kind, thing.to_local(points[active] + t[:, None] * rays[active])) * thing.scale
            seen[active] = np.minimum(seen[active], np.clip(0.5 + 0.5 * gap / (softness * t), 0, 1))
            t += np.clip(gap, 0.02, 0.25)
            going = (t < leave[active]) & (seen[active] > 0.01)
            active, t = active[going], t[going]
    return seen * seen * (3 - 2 * seen)


def _occlusion(things, points, normals):
    """Ambient light that reaches each point, 0..1, from the distances met along its normal."""
    blocked = np.zeros(len(points), np.float32)
    for weight, step in zip((0.9, 0.8, 0.6, 0.45, 0.3), AO_STEPS, strict=True):
        probe = points + step * normals
        gap = np.minimum(np.float32(step), probe[:, 2])
        for thing in things:
            centre = np.float32([thing.x, thing.y, 0]) + BOUND_CENTRE * np.float32(thing.scale)
            near = np.flatnonzero(np.linalg.norm(probe - centre, axis=-1) < BOUND_RADIUS * thing.scale + step)
            gap[near] = np.minimum(gap[near], distance(thing.kind, thing.to_local(probe[near])) * thing.scale)
        blocked += weight * np.clip(step - gap, 0, step) / step
    return 1.0 - 0.9 * np.clip(blocked / 3.05 * 1.15, 0.0, 1.0)


def march(things, camera, lights, height, width):
    """Buffers of one scene; `lights` are (unit direction towards the light, softness) pairs."""
    origin, rays = camera.eye(), camera.rays(height, width).reshape(-1, 3)
    down = -origin[2] / np.minimum(rays[:, 2], -1e-6)
    depth = np.where((rays[:, 2] < 0) & (down < FAR), down, FAR).astype(np.float32)
    label = np.where(depth < FAR, GROUND, SKY).astype(np.uint8)
    role = np.zeros_like(label)
    normal = np.zeros_like(rays)
    normal[label == GROUND] = (0, 0, 1)
    for k, thing in enumerate(things):
        t = _march(thing, origin, rays, depth)
        hit = np.flatnonzero(t < depth)
        points = origin + t[hit, None] * rays[hit]
        depth[hit] = t[hit]
        normal[hit] = _normals(thing, points)
        part, role[hit] = nearest_part(thing.kind, thing.to_local(points))
        label[hit] = 16 * (k + 1) + part
    solid = np.flatnonzero(label != SKY)
    points = origin + depth[solid, None] * rays[solid] + 0.006 * normal[solid]
    occlusion, lit = np.ones(len(rays), np.float32), np.ones((len(rays), len(lights)), np.float32)
    occlusion[solid] = _occlusion(things, points, normal[solid])
    for i, (light, softness) in enumerate(lights):
        facing = normal[solid] @ np.float32(light) > 0
        lit[solid[facing], i] = _shadow(things, points[facing], light, softness)
    shape = (height, width)
    return Buffers(
        label.reshape(shape),
        normal.reshape(*shape, 3),
        depth.reshape(shape),
        occlusion.reshape(shape),
        lit.reshape(*shape, len(lights)),
        role.reshape(shape),
    )
