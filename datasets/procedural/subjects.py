"""The subjects of procedural scenes: each function draws one at random, in units of its own height.

y runs from 0 (top) to 1 (bottom), x about 0. What a subject shows off is in its tags: "hard" edges, "holes", "thin"
structures, "hair", "translucent" surfaces.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from .materials import Material, material
from .render import Part, Strand, Subject
from .shapes import Outline, capsule, ellipse, polygon, profile, ring, smooth, spline, superellipse, tube

__all__ = ["SUBJECTS", "subjects_tagged"]

Rng = np.random.Generator
SURFACES = ("plain", "grain", "stripes", "spots", "checks", "weave", "wood")
CLOTHS = ("plain", "plain", "grain", "stripes", "checks", "weave", "spots")


def _one(rng: Rng, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def person(rng: Rng) -> Subject:
    """A standing or walking figure, seven and a half heads high."""
    skin, hair = material(rng, "skin", ("plain",)), material(rng, "hair", ("fur", "plain"))
    shirt, trousers, shoes = material(rng, "cloth", CLOTHS), material(rng, "cloth", CLOTHS), material(rng, "dark")
    build = _one(rng, 0.85, 1.2)
    hip, shoulder = 0.047 * build, 0.085 * build
    parts: list[Part] = []
    stride = _one(rng, 0.0, 0.12)
    skirt = rng.random() < 0.25

    def leg(side: float, shade: float) -> None:
        knee, foot = (side * (hip + stride * 0.4), 0.73), (side * (hip + stride), 0.965)
        cover = 0 if skirt else 2
        parts.append(Part(tube(((side * hip, 0.5), knee, foot), (0.1 * build, 0.07, 0.045)), cover, shade=shade))
        parts.append(Part(ellipse(foot[0] + 0.022, 0.98, 0.045, 0.02), 3, shade=shade))

    def arm(side: float, shade: float) -> None:
        lift = _one(rng, -0.2, 2.6) if rng.random() < 0.35 else _one(rng, 0.0, 0.5)
        bend = lift + _one(rng, 0.0, 1.6)
        elbow = (side * (shoulder + 0.16 * np.sin(lift)), 0.2 + 0.16 * np.cos(lift))
        hand = (elbow[0] + side * 0.15 * np.sin(bend), elbow[1] + 0.15 * np.cos(bend))
        bare = rng.random() < 0.4
        limb = tube(((side * shoulder * 0.85, 0.2), elbow, hand), (0.06 * build, 0.05, 0.035))
        parts.append(Part(limb, 0 if bare else 1, shade=shade))
        parts.append(Part(ellipse(*hand, 0.021, 0.026), 0, shade=shade))

    arm(-1, 0.8)
    leg(-1, 0.82)
    leg(1, 1.0)
    if skirt:
        flare = _one(rng, 0.09, 0.2)
        parts.append(Part(polygon((-0.055, 0.4), (0.055, 0.4), (flare, 0.72), (-flare, 0.72)), 2))
    torso = smooth(
        (-shoulder, 0.175),
        (0, 0.158),
        (shoulder, 0.175),
        (0.07 * build, 0.32),
        (0.078 * build, 0.5),
        (-0.078 * build, 0.5),
        (-0.07 * build, 0.32),
    )
    parts.append(Part(torso, 1))
    parts.append(Part(capsule(0, 0.12, 0, 0.17, 0.05), 0, shade=0.9))
    turn = _one(rng, -0.008, 0.012)
    parts.append(Part(ellipse(turn, 0.055, 0.054, 0.055), 4))
    if rng.random() < 0.35:
        parts.append(Part(tube(((-0.035, 0.06), (-0.05, 0.13), (-0.045, 0.2)), (0.05, 0.06, 0.03)), 4))
    parts.append(Part(ellipse(turn * 1.5, 0.075, 0.045, 0.057), 0))
    parts.append(Part(smooth((-0.05, 0.06), (-0.03, 0.008), (0.03, 0.008), (0.05, 0.055), (0, 0.038)), 4))
    if rng.random() < 0.6:
        arm(1, 1.0)
    tags: tuple[str, ...] = ("hard",)
    if rng.random() < 0.3:
        bag = material(rng, "any", SURFACES)
        parts.append(Part(superellipse(0.13, 0.5, 0.06, 0.07, 4), 5))
        outside, inside = ring(0.13, 0.42, 0.04, 0.03, 1.2)
        parts = [Part(outside, 5), Part(inside, 5, hole=True), *parts]
        return Subject("person", tuple(parts), (skin, shirt, trousers, shoes, hair, bag), (), ("hard", "holes"))
    return Subject("person", tuple(parts), (skin, shirt, trousers, shoes, hair), (), tags)


def portrait(rng: Rng) -> Subject:
    """Head and shoulders with loose hair, cut off by the lower edge."""
    skin, hair = material(rng, "skin", ("plain",), (0.0, 0.15)), material(rng, "hair", ("fur",), (0.0, 0.2))
    cloth, eye, lip = material(rng, "cloth", CLOTHS), material(rng, "dark", ("plain",), (0.5, 0.9)), _lip(rng)
    white = material(rng, "light", ("plain",))
    long = _one(rng, 0.15, 0.62)  # how far below the crown the hair falls
    spread = _one(rng, 0.2, 0.3)
    parts = [
        Part(
            smooth(
                (-0.16, 0.09), (0, 0.015), (0.16, 0.09), (spread, 0.25 + long * 0.4), (spread * 0.8, 0.3 + long),
                (0, 0.22 + long), (-spread * 0.8, 0.3 + long), (-spread, 0.25 + long * 0.4),
            ),
            1,
            shade=0.7,
        ),
        Part(smooth((-0.42, 0.86), (-0.3, 0.68), (0, 0.6), (0.3, 0.68), (0.42, 0.86), (0.45, 1.15), (-0.45, 1.15)), 2),
        Part(tube(((0, 0.45), (0, 0.6), (0, 0.68)), (0.17, 0.16, 0.22)), 0, shade=0.82),
        Part(ellipse(0, 0.295, 0.155, 0.215), 0),
    ]  # fmt: skip
    look = _one(rng, -0.02, 0.02)
    for side in (-1, 1):
        x = side * 0.062 + look
        parts += [
            Part(ellipse(x, 0.285, 0.027, 0.013), 5, 0.3),
            Part(ellipse(x + look * 0.3, 0.285, 0.0125, 0.0125), 3, 0.3),
            Part(tube(((x - 0.032, 0.256), (x, 0.245), (x + 0.032, 0.256)), (0.006, 0.013, 0.006)), 1, 0.3, 0.7),
        ]
    parts += [
        Part(tube(((look, 0.29), (look * 1.4, 0.34), (look * 1.4, 0.365)), (0.02, 0.03, 0.042)), 0, 0.9, 1.04),
        Part(smooth((-0.05, 0.42), (0, 0.411), (0.05, 0.42), (0, 0.441)), 4, 0.4),
        Part(
            smooth(
                (-0.165, 0.25), (-0.13, 0.09), (0, 0.045), (0.13, 0.09), (0.165, 0.25), (0.1, 0.16), (-0.08, 0.15)
            ),
            1,
        ),
    ]  # fmt: skip
    strands = _tresses(rng, long, spread)
    return Subject("portrait", tuple(parts), (skin, hair, cloth, eye, lip, white), strands, ("hair",), cut=True)


def _lip(rng: Rng) -> Material:
    return Material((_one(rng, 150, 205), _one(rng, 60, 110), _one(rng, 70, 110)), (160, 80, 80), gloss=0.3)


def _tresses(rng: Rng, long: float, spread: float) -> tuple[Strand, ...]:
    """Loose hair falling from the crown, with flyaways at its outside."""
    strands = []
    curl, wind = _one(rng, 0.0, 0.03), _one(rng, -0.12, 0.12) * (rng.random() < 0.5)
    frizz = _one(rng, 0.015, 0.06)
    waves = _one(rng, 1, 4)
    for index in range(420):
        flyaway = index % 3 == 0
        root = rng.uniform(-1, 1)
        side = 1.0 if root >= 0 else -1.0
        x0, y0 = 0.13 * root, 0.06 + 0.04 * root * root - 0.02 * rng.random()
        reach = long * rng.uniform(0.6, 1.15)
        end = (side * spread * rng.uniform(0.6, 1.05) + wind, 0.3 + reach)
        bulge = (side * spread * rng.uniform(0.8, 1.12), 0.2 + 0.35 * reach)
        path = spline(((x0, y0), (side * 0.155 * abs(root) ** 0.5 + 0.0, 0.13), bulge, end), 6)
        t = np.linspace(0, 1, len(path))
        path = path + np.stack((curl * np.sin(waves * 6.28 * t + rng.uniform(0, 6.28)) * t, 0 * t), 1)
        if flyaway:
            out = rng.normal(0, frizz, 2) * np.array((1.4, 1.0)) + (side * frizz * 0.7, -frizz * 0.3)
            path = path + out * (t**1.3)[:, None]
        strands.append(Strand(path, rng.uniform(0.0012, 0.003), 1, rng.uniform(0.65, 1.35), behind=rng.random() < 0.75))
    for _ in range(90):  # stray hairs over the crown
        angle = rng.uniform(-np.pi, 0)
        start = np.array((0.15 * np.cos(angle), 0.16 + 0.13 * np.sin(angle)))
        out = np.array((np.cos(angle), np.sin(angle))) * rng.uniform(0.01, 0.07) + rng.normal(0, 0.02, 2)
        path = spline(np.stack((start, start + out * 0.5 + rng.normal(0, 0.008, 2), start + out)), 5)
        strands.append(Strand(path, rng.uniform(0.001, 0.002), 1, rng.uniform(0.8, 1.4)))
    return tuple(strands)


def _fur(rng: Rng, outline: Outline, which: int, count: int, length: float, droop: float = 0.3) -> list[Strand]:
    """Short hairs standing out from `outline`, combed one way."""
    closed = np.concatenate((outline, outline[:1]))
    step = np.hypot(*np.diff(closed, axis=0).T)
    at = np.concatenate(([0.0], np.cumsum(step)))
    where = np.sort(rng.uniform(0, at[-1], count))
    root = np.stack((np.interp(where, at, closed[:, 0]), np.interp(where, at, closed[:, 1])), 1)
    ahead = np.stack((np.interp(where + 1e-3, at, closed[:, 0]), np.interp(where + 1e-3, at, closed[:, 1])), 1)
    along = ahead - root
    along /= np.hypot(along[:, 0], along[:, 1])[:, None] + 1e-9
    area = float(np.sum(closed[:-1, 0] * closed[1:, 1] - closed[1:, 0] * closed[:-1, 1]))
    outward = np.stack((along[:, 1], -along[:, 0]), 1) * (1 if area > 0 else -1)
    strands = []
    comb = rng.uniform(-0.8, 0.8)
    for index in range(count):
        reach = length * rng.uniform(0.5, 1.5)
        direction = outward[index] + comb * along[index] + rng.normal(0, 0.25, 2)
        start = root[index] - outward[index] * length * rng.uniform(0.2, 1.2)
        tip = root[index] + direction * reach + (0, droop * reach)
        middle = 0.5 * (start + tip) + outward[index] * reach * 0.15
        strands.append(
            Strand(spline(np.stack((start, middle, tip)), 4), rng.uniform(0.0015, 0.0035), which, rng.uniform(0.6, 1.4))
        )
    return strands


def furry_face(rng: Rng) -> Subject:
    """A cat, a bear or a dog from the front, furred all round, cut off by the lower edge."""
    coat = material(rng, "fur", ("fur", "spots", "grain"), (0.0, 0.05))
    inner = material(rng, "skin", ("plain",))
    eye, dark = material(rng, "vivid", ("plain",), (0.6, 1.0)), material(rng, "dark", ("plain",), (0.5, 0.9))
    wide = _one(rng, 0.24, 0.34)
    pointed = rng.random() < 0.55
    body = smooth((-0.3, 0.65), (0, 0.5), (0.3, 0.65), (0.4, 1.15), (-0.4, 1.15))
    head = superellipse(0, 0.36, wide, 0.26, 2.2)
    parts, strands = [Part(body, 0, shade=0.85)], _fur(rng, body, 0, 420, 0.035)
    for side in (-1, 1):
        if pointed:
            ear = polygon((side * wide * 0.98, 0.28), (side * wide * 0.95, 0.0), (side * wide * 0.3, 0.13))
            inside = polygon((side * wide * 0.88, 0.22), (side * wide * 0.86, 0.06), (side * wide * 0.5, 0.14))
        else:
            ear = ellipse(side * wide * 0.85, 0.15, 0.09, 0.1)
            inside = ellipse(side * wide * 0.85, 0.16, 0.05, 0.06)
        parts += [Part(ear, 0), Part(inside, 1, shade=0.8)]
        strands += _fur(rng, ear, 0, 110, 0.02)
    parts.append(Part(head, 0))
    strands += _fur(rng, head, 0, 420, 0.035)
    for side in (-1, 1):
        x = side * wide * 0.42
        parts += [Part(ellipse(x, 0.32, 0.05, 0.042), 2, 0.6), Part(ellipse(x, 0.32, 0.018, 0.036), 3, 0.5)]
        strands += [
            Strand(
                spline(
                    ((side * 0.05, 0.47), (side * 0.2, 0.46 + k), (side * rng.uniform(0.32, 0.46), 0.45 + 2 * k)), 6
                ),
                0.0022,
                4,
                1.0,
            )
            for k in rng.uniform(-0.03, 0.05, 5)
        ]
    muzzle = material(rng, "light", ("fur",))
    parts += [
        Part(ellipse(-0.05, 0.475, 0.065, 0.05), 4),
        Part(ellipse(0.05, 0.475, 0.065, 0.05), 4),
        Part(smooth((-0.04, 0.42), (0.04, 0.42), (0, 0.458)), 3, 0.7),
    ]
    return Subject(
        "furry face", tuple(parts), (coat, inner, eye, dark, muzzle), tuple(strands), ("hair", "thin"), cut=True
    )


def quadruped(rng: Rng) -> Subject:
    """A dog, a horse, a cow or a deer from the side, with or without a coat of hair."""
    coat = material(rng, "fur", ("plain", "fur", "spots", "grain"), (0.0, 0.2))
    second, dark = material(rng, "fur", ("plain",)), material(rng, "dark", ("plain",), (0.3, 0.8))
    length = _one(rng, 0.36, 0.52)
    leg = _one(rng, 0.34, 0.5)  # of the height
    back = 1 - leg - _one(rng, 0.26, 0.34)
    belly = 1 - leg + 0.03
    neck = _one(rng, -0.05, 0.12)
    head = np.array((length + _one(rng, 0.05, 0.16), max(0.12, back - 0.12 - neck)))
    parts: list[Part] = []
    for x, shade in ((-length * 0.75, 0.7), (length * 0.7, 0.7), (-length * 0.9, 1.0), (length * 0.85, 1.0)):
        step = _one(rng, -0.07, 0.07)
        knee = (x + step - 0.02, 1 - leg * 0.45)
        parts.append(
            Part(tube(((x, belly - 0.08), knee, (x + step * 1.4, 0.975)), (0.15, 0.075, 0.05)), 0, shade=shade)
        )
        parts.append(Part(ellipse(x + step * 1.4 + 0.015, 0.98, 0.04, 0.02), 2, shade=shade))
    sway = _one(rng, -0.1, 0.25)
    tail_at = (-length - 0.02, back + 0.06)
    tail = tube(
        (tail_at, (tail_at[0] - 0.1, back + sway), (tail_at[0] - 0.13, back + 0.3 * sway + 0.22)), (0.06, 0.04, 0.015)
    )
    body = smooth(
        (-length, back + 0.03), (-length * 0.4, back), (length * 0.4, back + 0.02), (length, back + 0.02),
        (length * 1.02, belly - 0.1), (length * 0.5, belly), (-length * 0.4, belly - 0.04),
        (-length * 1.03, belly - 0.12),
    )  # fmt: skip
    throat = tube(((length * 0.8, back + 0.1), (head[0] - 0.07, head[1] + 0.1), tuple(head)), (0.24, 0.17, 0.14))
    skull = ellipse(head[0] + 0.01, head[1], 0.095, 0.078, 0.3)
    nose = (head[0] + _one(rng, 0.14, 0.2), head[1] + _one(rng, 0.04, 0.1))
    snout = tube(((head[0] + 0.02, head[1] + 0.01), nose), (0.12, 0.07))
    parts += [Part(tail, 0, shade=0.85), Part(body, 0), Part(throat, 0), Part(snout, 0), Part(skull, 0)]
    parts.append(Part(ellipse(nose[0] + 0.02, nose[1] - 0.01, 0.022, 0.02), 2))
    parts.append(Part(ellipse(head[0] + 0.035, head[1] - 0.022, 0.014, 0.013), 2, 0.4))
    if rng.random() < 0.5:
        ear = smooth(
            (head[0] - 0.06, head[1] - 0.05), (head[0] - 0.08, head[1] - 0.17), (head[0] + 0.0, head[1] - 0.06)
        )
    else:
        ear = smooth(
            (head[0] - 0.05, head[1] - 0.06), (head[0] + 0.0, head[1] - 0.03), (head[0] - 0.06, head[1] + 0.12)
        )
    parts.append(Part(ear, 1))
    strands: list[Strand] = []
    tags: tuple[str, ...] = ("hard",)
    if rng.random() < 0.5:
        reach = _one(rng, 0.015, 0.035)
        for outline, count in ((body, 420), (throat, 160), (skull, 90), (tail, 180)):
            strands += _fur(rng, outline, 0, count, reach, 0.9)
        tags = ("hair",)
    return Subject("quadruped", tuple(parts), (coat, second, dark), tuple(strands), tags)


def bird(rng: Rng) -> Subject:
    """A perching bird."""
    body, wing = material(rng, "any", ("plain", "grain", "spots")), material(rng, "any", ("fur", "stripes", "grain"))
    beak, dark = material(rng, "warm", ("plain",)), material(rng, "dark", ("plain",), (0.5, 0.9))
    tall = _one(rng, 0.14, 0.26)
    parts = [
        Part(polygon((-0.25, 0.6), (-0.62, _one(rng, 0.62, 0.92)), (-0.5, 0.95), (-0.15, 0.75)), 1, 0.6),
        Part(capsule(0.02, 0.8, 0.05, 0.97, 0.022), 2),
        Part(capsule(0.1, 0.8, 0.14, 0.97, 0.022), 2),
        Part(tube(((0.0, 0.97), (0.06, 0.965), (0.14, 0.985)), (0.018, 0.02, 0.012)), 2),
        Part(tube(((0.1, 0.97), (0.15, 0.965), (0.23, 0.985)), (0.018, 0.02, 0.012)), 2),
        Part(smooth((0.2, 0.3), (0.32, 0.5), (0.2, 0.78), (-0.05, 0.82), (-0.3, 0.66), (-0.12, 0.45), (0.03, 0.28)), 0),
        Part(polygon((0.3, 0.17), (0.3 + tall, 0.22), (0.3, 0.27)), 2, 0.7),
        Part(ellipse(0.19, 0.2, 0.155, 0.15), 0),
        Part(ellipse(0.25, 0.17, 0.025, 0.025), 3, 0.5),
        Part(smooth((0.08, 0.42), (0.14, 0.56), (-0.08, 0.7), (-0.48, 0.8), (-0.25, 0.58), (-0.08, 0.42)), 1, 0.6),
    ]
    return Subject("bird", tuple(parts), (body, wing, beak, dark), (), ("hard", "thin"))


def fish(rng: Rng) -> Subject:
    """A fish from the side with see-through fins."""
    scales, fin = material(rng, "vivid", ("stripes", "spots", "grain", "checks"), (0.3, 0.8)), material(rng, "warm")
    dark = material(rng, "dark", ("plain",), (0.5, 0.9))
    deep = _one(rng, 0.2, 0.36)
    opacity = _one(rng, 0.45, 0.9)
    back = smooth((-0.25, 0.5 - deep * 0.7), (-0.1, 0.5 - deep * 1.7), (0.3, 0.5 - deep * 0.8))
    belly = smooth((-0.2, 0.5 + deep * 0.7), (-0.2, 0.5 + deep * 1.5), (0.1, 0.5 + deep * 0.7))
    upper, lower = ((0.4, 0.5 - deep * 0.85), (0, 0.5 - deep)), ((0, 0.5 + deep), (0.45, 0.5 + deep * 0.8))
    body = smooth((0.72, 0.52), *upper, (-0.55, 0.47), (-0.55, 0.55), *lower)
    parts = [
        Part(polygon((-0.5, 0.5), (-0.9, 0.22), (-0.8, 0.5), (-0.9, 0.8)), 1, 0.4, opacity=opacity),
        Part(back, 1, 0.4, opacity=opacity),
        Part(belly, 1, 0.4, opacity=opacity),
        Part(body, 0),
        Part(ellipse(0.48, 0.45, 0.06, 0.06), 1, 0.4),
        Part(ellipse(0.48, 0.45, 0.035, 0.035), 2, 0.5),
        Part(smooth((0.2, 0.52), (0.0, 0.45), (-0.12, 0.6), (0.08, 0.62)), 1, 0.5),
    ]  # fmt: skip
    return Subject("fish", tuple(parts), (scales, fin, dark), (), ("translucent",), grounded=False)


def butterfly(rng: Rng) -> Subject:
    """A butterfly with open wings and thin feelers."""
    wing, border = material(rng, "vivid", ("spots", "stripes", "grain")), material(rng, "dark", ("plain", "spots"))
    spot = material(rng, "warm")
    parts: list[Part] = []
    upper, lower = _one(rng, 0.45, 0.6), _one(rng, 0.3, 0.45)
    for side in (-1, 1):
        for scale, which in ((1.0, 1), (0.85, 0)):
            top = np.array(((0.03, 0.45), (0.25, 0.1), (upper, 0.03), (upper * 0.95, 0.35), (0.3, 0.55)))
            low = np.array(((0.03, 0.52), (0.3, 0.56), (lower, 0.75), (lower * 0.6, 0.97), (0.12, 0.8)))
            for points in (low, top):
                centre = points.mean(0)
                outline = (points - centre) * scale + centre
                parts.append(Part(smooth(*map(tuple, outline * (side, 1))), which, 0.25))
        parts.append(Part(ellipse(side * upper * 0.7, 0.25, 0.05, 0.06), 2, 0.2))
    parts.append(Part(tube(((0, 0.3), (0, 0.5), (0, 0.85)), (0.05, 0.08, 0.03)), 1))
    strands = [
        Strand(spline(((side * 0.01, 0.32), (side * 0.06, 0.18), (side * 0.16, 0.08)), 8), 0.008, 1) for side in (-1, 1)
    ]
    return Subject("butterfly", tuple(parts), (wing, border, spot), tuple(strands), ("thin",), grounded=False)


def flower(rng: Rng) -> Subject:
    """A flower on its stem, with leaves."""
    petal, heart = material(rng, "vivid", ("plain", "grain", "fur")), material(rng, "warm", ("spots", "grain"))
    green = material(rng, "leaf", ("plain", "grain", "fur"))
    petals, radius = int(rng.integers(5, 14)), _one(rng, 0.2, 0.32)
    width = radius * 2.4 / petals + 0.02
    centre = (0.0, radius + 0.02)
    bend = _one(rng, -0.12, 0.12)
    parts = [Part(tube((centre, (bend, 0.65), (bend * 0.5, 1.0)), (0.02, 0.028, 0.034)), 2)]
    for side in (-1, 1):
        y = _one(rng, 0.6, 0.85)
        parts.append(
            Part(
                smooth((bend * 0.6, y), (side * 0.14, y - 0.14), (side * 0.3, y - 0.16), (side * 0.18, y - 0.02)),
                2,
                0.5,
            )
        )
    start = _one(rng, 0, 6.28)
    for layer in range(2):
        for index in range(petals):
            angle = start + 2 * np.pi * (index + 0.5 * layer) / petals
            reach = radius * (0.62 - 0.12 * layer)
            x, y = centre[0] + reach * np.cos(angle), centre[1] + reach * np.sin(angle)
            parts.append(Part(ellipse(x, y, radius * (0.42 - 0.06 * layer), width, angle), 0, 0.7, 0.85 + 0.15 * layer))
    parts.append(Part(ellipse(*centre, radius * 0.3, radius * 0.28), 1))
    return Subject("flower", tuple(parts), (petal, heart, green), (), ("hard", "thin"))


def bottle(rng: Rng) -> Subject:
    """An opaque bottle or vase, turned on a lathe."""
    wall, label, cap = material(rng, "any", SURFACES, (0.2, 0.9)), material(rng, "any", CLOTHS), material(rng, "any")
    half, neck = _one(rng, 0.11, 0.24), _one(rng, 0.035, 0.08)
    shoulder = _one(rng, 0.25, 0.5)
    outline = profile(
        ((neck, 0.03), (neck, shoulder * 0.6), (half, shoulder), (half * _one(rng, 0.8, 1.1), 0.75), (half * 0.9, 0.99))
    )
    parts = [Part(outline, 0)]
    if rng.random() < 0.6:
        parts.append(Part(superellipse(0, 0.7, half * 0.97, 0.12, 8), 1, 0.8))
        parts.append(Part(ellipse(0, 0.7, half * 0.4, 0.05), 2, 0.1))
    if rng.random() < 0.6:
        parts.append(Part(superellipse(0, 0.04, neck * 1.25, 0.04, 6), 2))
    return Subject("bottle", tuple(parts), (wall, label, cap), (), ("hard",))


def mug(rng: Rng) -> Subject:
    """A cup or a jug with a handle that one sees through."""
    wall, inside, sign = material(rng, "any", SURFACES, (0.2, 0.8)), material(rng, "dark"), material(rng, "any")
    half, lower = _one(rng, 0.3, 0.42), _one(rng, 0.65, 1.0)
    outer, hole = ring(half * 0.95, 0.5, 0.26, _one(rng, 0.15, 0.2), _one(rng, 0.9, 1.15))
    body = polygon(
        (-half, 0.08),
        (half, 0.08),
        (half * lower, 0.95),
        (half * lower * 0.8, 0.99),
        (-half * lower * 0.8, 0.99),
        (-half * lower, 0.95),
    )
    parts = [
        Part(outer, 0),
        Part(hole, 0, hole=True),
        Part(body, 0),
        Part(ellipse(0, 0.08, half, 0.07), 0, 0.3),
        Part(ellipse(0, 0.08, half * 0.92, 0.055), 1, 0.0),
        Part(ellipse(0, 0.55, half * 0.4, 0.14), 2, 0.1),
    ]
    return Subject("mug", tuple(parts), (wall, inside, sign), (), ("hard", "holes"))


def chair(rng: Rng) -> Subject:
    """A chair: thin legs, and a back that one sees through."""
    frame, seat = material(rng, "wood", ("wood", "plain"), (0.1, 0.5)), material(rng, "cloth", CLOTHS)
    half, leg = _one(rng, 0.2, 0.27), _one(rng, 0.025, 0.045)
    parts = [
        Part(capsule(-half * 0.85, 0.55, -half * 0.9, 0.93, leg), 0, shade=0.65),
        Part(capsule(half * 0.85, 0.55, half * 0.9, 0.93, leg), 0, shade=0.65),
        Part(capsule(-half, 0.03, -half, 0.6, leg), 0),
        Part(capsule(half, 0.03, half, 0.6, leg), 0),
    ]
    if rng.random() < 0.5:
        parts += [
            Part(capsule(-half, y, half, y, leg * 1.1), 0) for y in np.linspace(0.07, 0.42, int(rng.integers(2, 5)))
        ]
    else:
        parts += [Part(capsule(-half, y, half, y, leg * 1.2), 0) for y in (0.06, 0.45)]
        parts += [
            Part(capsule(x, 0.06, x, 0.45, leg * 0.7), 0) for x in np.linspace(-half, half, int(rng.integers(4, 8)))
        ]
    parts += [
        Part(polygon((-half * 1.05, 0.54), (half * 1.05, 0.54), (half * 1.3, 0.63), (-half * 1.3, 0.63)), 1, 0.5),
        Part(polygon((-half * 1.3, 0.625), (half * 1.3, 0.625), (half * 1.3, 0.655), (-half * 1.3, 0.655)), 0, 0.5),
        Part(capsule(-half * 1.22, 0.64, -half * 1.28, 0.99, leg * 1.1), 0),
        Part(capsule(half * 1.22, 0.64, half * 1.28, 0.99, leg * 1.1), 0),
    ]
    return Subject("chair", tuple(parts), (frame, seat), (), ("hard", "holes", "thin"))


def bicycle(rng: Rng) -> Subject:
    """A bicycle: rims, spokes and tubes."""
    paint, rubber = material(rng, "vivid", ("plain",), (0.3, 0.9)), material(rng, "dark", ("plain",))
    metal = material(rng, "metal", ("plain",), (0.4, 1.0))
    radius, gap = 0.31, _one(rng, 0.44, 0.52)
    parts, strands = [], []
    for x in (-gap, gap):
        outside, inside = ring(x, 0.69, radius, radius - 0.04)
        parts += [Part(outside, 1), Part(inside, 1, hole=True)]
        for angle in np.linspace(0, 2 * np.pi, int(rng.integers(10, 18)), endpoint=False):
            end = (x + radius * 0.93 * np.cos(angle), 0.69 + radius * 0.93 * np.sin(angle))
            strands.append(Strand(polygon((x, 0.69), (0.5 * (x + end[0]), 0.5 * (0.69 + end[1])), end), 0.006, 2))
    crank, saddle, bars = (-0.08, 0.68), (-0.19, 0.24), (0.3, 0.22)
    thick = _one(rng, 0.028, 0.045)
    tubes = (
        (crank, saddle), (crank, (0.33, 0.36)), (crank, (-gap, 0.69)),
        ((-0.16, 0.34), (0.32, 0.3)), ((-0.16, 0.34), (-gap, 0.69)), (bars, (gap, 0.69)),
    )  # fmt: skip
    for a, b in tubes:
        parts.append(Part(capsule(*a, *b, thick), 0))
    parts += [
        Part(ellipse(saddle[0], 0.225, 0.1, 0.03), 1),
        Part(tube(((0.22, 0.17), (0.3, 0.2), (0.4, 0.17), (0.4, 0.27)), (0.03,) * 4), 1),
        Part(ellipse(*crank, 0.055, 0.055), 2),
    ]
    return Subject("bicycle", tuple(parts), (paint, rubber, metal), tuple(strands), ("holes", "thin"))


def car(rng: Rng) -> Subject:
    """A car from the side."""
    paint, glass = material(rng, "vivid", ("plain",), (0.5, 1.0)), material(rng, "dark", ("grain",), (0.7, 1.0))
    tyre, rim = material(rng, "dark", ("plain",)), material(rng, "metal", ("plain",), (0.4, 1.0))
    lamp = material(rng, "warm", ("plain",), (0.8, 1.0))
    roof, tail = _one(rng, 0.02, 0.15), _one(rng, -0.95, -0.7)
    front, rear = ((0.55, 0.42), (1.1, 0.52), (1.18, 0.75), (1.0, 0.84)), ((-1.0, 0.84), (tail * 1.27, 0.7))
    chassis = smooth((tail * 1.2, 0.5), (tail, 0.4), *front, *rear)
    parts = [
        Part(smooth((-0.75, 0.45), (-0.5, roof), (0.2, roof), (0.55, 0.45), (0.0, 0.5)), 0, 0.6),
        Part(chassis, 0, 0.8),
        Part(polygon((-0.62, 0.42), (-0.44, roof + 0.06), (-0.16, roof + 0.06), (-0.16, 0.42)), 1, 0.3),
        Part(polygon((-0.11, 0.42), (-0.11, roof + 0.06), (0.18, roof + 0.06), (0.43, 0.42)), 1, 0.3),
        Part(ellipse(1.1, 0.58, 0.05, 0.045), 4),
        Part(capsule(-0.9, 0.64, 1.0, 0.64, 0.012), 2, 0.2),
    ]  # fmt: skip
    for x in (-0.65, 0.68):
        parts += [Part(ellipse(x, 0.8, 0.2, 0.2), 2, 0.3), Part(ellipse(x, 0.8, 0.11, 0.11), 3, 0.4)]
        parts += [
            Part(capsule(x, 0.8, x + 0.1 * np.cos(a), 0.8 + 0.1 * np.sin(a), 0.03), 2, 0.1)
            for a in np.arange(5) * 1.2566
        ]
    return Subject("car", tuple(parts), (paint, glass, tyre, rim, lamp), (), ("hard",))


def fruit(rng: Rng) -> Subject:
    """An apple, a pear, a pepper, with stalk and leaf."""
    skin, green = material(rng, "vivid", ("plain", "grain", "spots"), (0.2, 0.9)), material(rng, "leaf", ("grain",))
    wood = material(rng, "wood")
    top, low = _one(rng, 0.2, 0.44), _one(rng, 0.3, 0.48)
    right = ((top * 0.6, 0.15), (top, 0.35), (low, 0.68), (low * 0.5, 0.97))
    body = smooth((0, 0.2), *right, (0, 0.95), *((-x, y) for x, y in reversed(right)))
    parts = [
        Part(tube(((0, 0.22), (0.01, 0.1), (_one(rng, -0.08, 0.08), 0.02)), (0.03, 0.025, 0.035)), 2),
        Part(body, 0, 1.2),
    ]
    if rng.random() < 0.7:
        parts.append(Part(smooth((0.01, 0.13), (0.14, 0.02), (0.34, 0.05), (0.18, 0.14)), 1, 0.5))
    return Subject("fruit", tuple(parts), (skin, green, wood), (), ("hard",))


def ball(rng: Rng) -> Subject:
    """A ball with patches."""
    base, patch = material(rng, "any", SURFACES, (0.1, 0.9)), material(rng, "any", SURFACES)
    parts = [Part(ellipse(0, 0.5, 0.5, 0.5, count=96), 0, 1.25)]
    for index in range(int(rng.integers(0, 6))):
        angle, reach = index * 1.2566 + 0.3, 0.28
        parts.append(Part(ellipse(reach * np.cos(angle), 0.5 + reach * np.sin(angle), 0.12, 0.12), 1, 0.25))
    return Subject("ball", tuple(parts), (base, patch), (), ("hard",))


def torus(rng: Rng) -> Subject:
    """A ring, a tyre, a doughnut: what is behind shows through."""
    body, dots = material(rng, "any", SURFACES, (0.1, 0.8)), material(rng, "vivid")
    squash = _one(rng, 0.55, 1.0)
    thick = _one(rng, 0.15, 0.33)
    middle = 0.5 - thick / 2
    x = middle * np.cos(np.linspace(0, 2 * np.pi, 28, endpoint=False))
    y = 0.5 + middle * squash * np.sin(np.linspace(0, 2 * np.pi, 28, endpoint=False))
    around = np.stack((x, y), 1)
    # Sectors of the ring, so that each is inflated across its own thickness.
    parts = [
        Part(tube(np.take(around, range(k, k + 4), axis=0, mode="wrap"), (thick,) * 3), 0) for k in range(0, 28, 2)
    ]
    for _ in range(int(rng.integers(0, 14))):
        a = rng.uniform(0, 2 * np.pi)
        parts.append(Part(ellipse(middle * np.cos(a), 0.5 + middle * squash * np.sin(a), 0.025, 0.018, a), 1))
    return Subject("torus", tuple(parts), (body, dots), (), ("hard", "holes"))


def tree(rng: Rng) -> Subject:
    """A bare or leafy tree: branches down to twigs."""
    bark, leaf = material(rng, "wood", ("wood", "grain")), material(rng, "leaf", ("grain", "spots"))
    parts: list[Part] = []
    strands: list[Strand] = []
    leaves = rng.random() < 0.6

    def grow(x: float, y: float, angle: float, length: float, width: float, depth: int) -> None:
        bend = rng.normal(0, 0.2)
        middle = (x + 0.5 * length * np.sin(angle + bend), y - 0.5 * length * np.cos(angle + bend))
        end = (x + length * np.sin(angle), y - length * np.cos(angle))
        if width > 0.008:
            parts.append(Part(tube(((x, y), middle, end), (width, width * 0.85, width * 0.65)), 0))
        else:
            strands.append(Strand(spline(((x, y), middle, end), 4), width, 0, rng.uniform(0.7, 1.2)))
        if depth == 0:
            if leaves:
                for _ in range(2):
                    x, y = rng.normal(end, 0.025)
                    parts.append(Part(ellipse(x, y, 0.03, 0.018, rng.uniform(0, 3)), 1, 0.4, rng.uniform(0.6, 1.3)))
            return
        for _ in range(int(rng.integers(2, 4))):
            grow(*end, angle + rng.normal(0, 0.5), length * rng.uniform(0.62, 0.85), width * 0.6, depth - 1)

    grow(0, 1.0, rng.normal(0, 0.1), 0.27, _one(rng, 0.05, 0.09), 4)
    return Subject("tree", tuple(parts[:250]), (bark, leaf), tuple(strands), ("thin", "holes"))


def fern(rng: Rng) -> Subject:
    """A pot plant with narrow arching leaves."""
    pot, green = material(rng, "any", SURFACES, (0.0, 0.6)), material(rng, "leaf", ("fur", "stripes", "plain"))
    parts = []
    for _ in range(int(rng.integers(12, 26))):
        out = rng.normal(0, 0.25)
        top = rng.uniform(0.02, 0.35) + abs(out) * 0.4
        width = rng.uniform(0.015, 0.05)
        tip = (1.7 * out, top + abs(out) * rng.uniform(0.0, 0.9))
        parts.append(
            Part(
                tube(((0.25 * out, 0.72), (0.9 * out, top), tip), (width * 0.5, width, 0.003)),
                1,
                0.6,
                rng.uniform(0.6, 1.2),
            )
        )
    parts += [
        Part(polygon((-0.17, 0.7), (0.17, 0.7), (0.125, 0.99), (-0.125, 0.99)), 0),
        Part(superellipse(0, 0.7, 0.19, 0.03, 6), 0),
    ]
    return Subject("pot plant", tuple(parts), (pot, green), (), ("thin", "holes"))


def dandelion(rng: Rng) -> Subject:
    """A seed head, a powder puff, a feathery ball of fine hairs on a stem."""
    fluff, stem = material(rng, "light", ("plain",)), material(rng, "leaf", ("plain",))
    heart = material(rng, "earth", ("grain",))
    strands = []
    radius = _one(rng, 0.24, 0.32)
    centre = np.array((0.0, radius + 0.02))
    for _ in range(260):
        angle, reach = rng.uniform(0, 2 * np.pi), radius * np.sqrt(rng.uniform(0.25, 1))
        direction = np.array((np.cos(angle), np.sin(angle)))
        end = centre + direction * reach
        strands.append(
            Strand(
                polygon(tuple(centre), tuple(centre + direction * reach * 0.5), tuple(end)),
                0.002,
                0,
                rng.uniform(0.7, 1.1),
            )
        )
        for turn in rng.normal(0, 0.9, 5):
            tip = end + 0.05 * np.array((np.cos(angle + turn), np.sin(angle + turn))) * rng.uniform(0.5, 1.2)
            strands.append(
                Strand(polygon(tuple(end), tuple(0.5 * (end + tip)), tuple(tip)), 0.0016, 0, rng.uniform(0.8, 1.15))
            )
    parts = (
        Part(tube(((0, radius), (_one(rng, -0.08, 0.08), 0.7), (0, 1.0)), (0.018, 0.022, 0.026)), 1),
        Part(ellipse(0, radius + 0.02, radius * 0.24, radius * 0.22), 2),
    )
    return Subject("dandelion", parts, (fluff, stem, heart), tuple(strands), ("hair", "thin"))


def glass(rng: Rng) -> Subject:
    """A drinking glass or a jar, half full: clear where it is empty."""
    wall = material(rng, "glass", ("plain",), (0.8, 1.0))
    drink = material(rng, "vivid", ("plain", "grain"), (0.3, 0.8))
    half = _one(rng, 0.2, 0.34)
    low = half * _one(rng, 0.6, 1.0)
    stem = rng.random() < 0.5
    level = _one(rng, 0.2, 0.5)
    clear = _one(rng, 0.15, 0.4)
    if stem:
        bowl = smooth(
            (-half, 0.02),
            (half, 0.02),
            (half * 1.05, 0.25),
            (half * 0.4, 0.52),
            (-half * 0.4, 0.52),
            (-half * 1.05, 0.25),
        )
        fill = smooth(
            (-half * 0.9, level * 0.6),
            (half * 0.9, level * 0.6),
            (half * 0.8, 0.36),
            (half * 0.3, 0.48),
            (-half * 0.3, 0.48),
            (-half * 0.8, 0.36),
        )
        parts = [
            Part(capsule(0, 0.5, 0, 0.96, 0.035), 0, opacity=0.5),
            Part(ellipse(0, 0.965, half * 0.75, 0.03), 0, opacity=0.5),
            Part(bowl, 0, opacity=clear),
            Part(fill, 1, opacity=_one(rng, 0.65, 0.95)),
        ]
    else:
        bowl = polygon((-half, 0.02), (half, 0.02), (low, 0.97), (-low, 0.97))
        at = half + (low - half) * level
        fill = polygon((-at * 0.93, level), (at * 0.93, level), (low * 0.93, 0.93), (-low * 0.93, 0.93))
        parts = [
            Part(bowl, 0, opacity=clear),
            Part(ellipse(0, 0.03, half, 0.03), 0, 0.5, opacity=clear),
            Part(fill, 1, opacity=_one(rng, 0.65, 0.95)),
            Part(ellipse(0, level, at * 0.93, 0.025), 1, 0.2, 1.2, opacity=0.85),
        ]
    return Subject("glass", tuple(parts), (wall, drink), (), ("translucent",))


def balloon(rng: Rng) -> Subject:
    """Balloons or bubbles on strings."""
    strands, parts, materials = [], [], []
    clear = _one(rng, 0.1, 0.75)
    for index in range(int(rng.integers(1, 6))):
        skin = material(rng, "vivid" if clear > 0.3 else "glass", ("plain",), (0.7, 1.0))
        materials.append(skin)
        x, y, r = _one(rng, -0.25, 0.25), _one(rng, 0.15, 0.45), _one(rng, 0.12, 0.17)
        parts.append(
            Part(
                smooth((x, y - r), (x + r * 0.9, y - 0.1 * r), (x, y + r * 1.15), (x - r * 0.9, y - 0.1 * r)),
                index,
                1.1,
                opacity=clear,
            )
        )
        strands.append(
            Strand(spline(((x, y + r), (0.5 * x + rng.normal(0, 0.02), 0.7), (0, 1.0)), 8), 0.004, index, 0.6, True)
        )
    return Subject("balloon", tuple(parts), tuple(materials), tuple(strands), ("translucent", "thin"), grounded=False)


def veil(rng: Rng) -> Subject:
    """A figure in a hanging, folded, see-through cloth."""
    cloth, body = material(rng, "cloth", ("plain", "weave", "stripes")), material(rng, "skin", ("plain",))
    hair = material(rng, "hair", ("fur",))
    clear = _one(rng, 0.35, 0.7)
    parts = [
        Part(tube(((0, 0.2), (0.02, 0.5), (0, 0.95)), (0.2, 0.22, 0.18)), 1),
        Part(ellipse(0, 0.12, 0.09, 0.115), 1),
        Part(smooth((-0.1, 0.14), (-0.07, 0.01), (0.07, 0.01), (0.1, 0.14), (0, 0.05)), 2),
    ]
    folds = int(rng.integers(7, 12))
    edge = np.linspace(-0.34, 0.34, folds + 1)
    for a, b in pairwise(edge):
        sag = rng.uniform(-0.03, 0.03)
        strip = smooth(
            (a * 0.4, 0.22), (b * 0.4, 0.22), (b, 0.6), (b * 1.1, 0.98 + sag), (a * 1.1, 0.97 - sag), (a, 0.6)
        )
        parts.append(Part(strip, 0, 0.8, rng.uniform(0.8, 1.1), opacity=clear + rng.uniform(-0.12, 0.12)))
    return Subject("veil", tuple(parts), (cloth, body, hair), (), ("translucent",))


def box(rng: Rng) -> Subject:
    """A parcel, a book, a toy block: three faces."""
    front, side, lid = material(rng, "any", SURFACES), material(rng, "any", SURFACES), material(rng, "any", SURFACES)
    if rng.random() < 0.7:
        side = lid = front
    w, d, top = _one(rng, 0.25, 0.6), _one(rng, 0.08, 0.3), _one(rng, 0.08, 0.25)
    left, right = -w - d / 2, w - d / 2
    parts = [
        Part(polygon((left, top), (right, top), (right + d, 0.02), (left + d, 0.02)), 2, 0, 1.1),
        Part(polygon((right, top), (right + d, 0.02), (right + d, 0.99 - top), (right, 0.99)), 1, 0, 0.6),
        Part(polygon((left, top), (right, top), (right, 0.99), (left, 0.99)), 0, 0, 0.9),
    ]
    stripe = material(rng, "any", SURFACES)
    if rng.random() < 0.6:
        x = _one(rng, left + 0.05, right - 0.1)
        parts.append(Part(polygon((x, top), (x + 0.08, top), (x + 0.08, 0.99), (x, 0.99)), 3, 0))
        parts.append(Part(polygon((x, top), (x + 0.08, top), (x + 0.08 + d, 0.02), (x + d, 0.02)), 3, 0, 1.1))
    return Subject("box", tuple(parts), (front, side, lid, stripe), (), ("hard",))


def lamp(rng: Rng) -> Subject:
    """A lamp on a thin stand."""
    shade, stand = material(rng, "cloth", CLOTHS), material(rng, "metal", ("plain",), (0.4, 1.0))
    top, low = _one(rng, 0.1, 0.2), _one(rng, 0.2, 0.3)
    parts = (
        Part(capsule(0, 0.3, 0, 0.96, 0.022), 1),
        Part(ellipse(0, 0.97, 0.17, 0.025), 1),
        Part(polygon((-top, 0.02), (top, 0.02), (low, 0.34), (-low, 0.34)), 0),
    )
    return Subject("lamp", parts, (shade, stand), (), ("hard", "thin"))


def spectacles(rng: Rng) -> Subject:
    """Scissors, spectacles, a key: rings and rods lying flat."""
    metal, grip = material(rng, "metal", ("plain",), (0.5, 1.0)), material(rng, "vivid", ("plain",), (0.3, 0.9))
    parts: list[Part] = []
    spread = _one(rng, 0.08, 0.3)
    for side in (-1, 1):
        x = side * (0.13 + spread)
        parts += [Part(o, 1, hole=k == 1) for k, o in enumerate(ring(x, 0.84, 0.15, 0.095, 1.0))]
    for side in (-1, 1):
        parts.append(
            Part(
                tube(
                    ((side * (0.08 + spread * 0.8), 0.73), (0, 0.45), (-side * spread * 0.6, 0.02)), (0.06, 0.09, 0.015)
                ),
                0,
            )
        )
    parts.append(Part(ellipse(0, 0.46, 0.028, 0.028), 1))
    return Subject("scissors", tuple(parts), (metal, grip), (), ("hard", "holes", "thin"), grounded=False)


def guitar(rng: Rng) -> Subject:
    """A guitar with its strings."""
    wood, neck = material(rng, "wood", ("wood", "grain", "plain"), (0.3, 0.9)), material(rng, "dark", ("wood",))
    wire = material(rng, "metal", ("plain",))
    w = _one(rng, 0.17, 0.22)
    body = smooth(
        (0, 0.5),
        (w * 0.8, 0.53),
        (w * 0.62, 0.68),
        (w, 0.85),
        (0, 1.0),
        (-w, 0.85),
        (-w * 0.62, 0.68),
        (-w * 0.8, 0.53),
    )
    parts = (
        Part(capsule(0, 0.1, 0, 0.66, 0.045), 1, 0.3),
        Part(body, 0, 0.5),
        Part(capsule(0, 0.1, 0, 0.64, 0.045), 1, 0.3),
        Part(ellipse(0, 0.69, 0.055, 0.055), 1, 0.0, 0.5),
        Part(polygon((-0.035, 0.0), (0.035, 0.0), (0.025, 0.11), (-0.025, 0.11)), 1, 0.4),
        Part(capsule(-0.06, 0.86, 0.06, 0.86, 0.02), 1),
    )
    strands = tuple(
        Strand(polygon((x, 0.03), (x, 0.4), (x, 0.86)), 0.003, 2, 1.2) for x in np.linspace(-0.015, 0.015, 4)
    )
    return Subject("guitar", parts, (wood, neck, wire), strands, ("hard",))


def boat(rng: Rng) -> Subject:
    """A sailing boat with rigging."""
    hull, sail = material(rng, "any", SURFACES), material(rng, "light", ("plain", "stripes", "weave"))
    wire = material(rng, "dark", ("plain",))
    parts = (
        Part(capsule(0, 0.02, 0, 0.86, 0.016), 2),
        Part(smooth((0.02, 0.05), (0.2, 0.4), (0.36, 0.76), (0.02, 0.76)), 1, 0.5),
        Part(smooth((-0.02, 0.12), (-0.14, 0.45), (-0.3, 0.74), (-0.02, 0.74)), 1, 0.5, 0.9),
        Part(polygon((-0.42, 0.82), (0.46, 0.8), (0.34, 0.99), (-0.33, 0.99)), 0),
    )
    strands = (
        Strand(polygon((0, 0.02), (0.22, 0.4), (0.45, 0.81)), 0.003, 2),
        Strand(polygon((0, 0.02), (-0.2, 0.4), (-0.41, 0.82)), 0.003, 2),
    )
    return Subject("boat", parts, (hull, sail, wire), strands, ("thin", "holes"))


def blob(rng: Rng) -> Subject:
    """A stone, a loaf, a shapeless toy."""
    body = material(rng, "any", SURFACES)
    angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    radius = np.full(90, 0.42)
    for k in range(2, 8):
        radius += rng.normal(0, 0.09 / k) * np.cos(k * angles + rng.uniform(0, 6.28))
    wide = _one(rng, 0.8, 1.6)
    outline = np.stack((radius * wide * np.cos(angles), radius * np.sin(angles)), 1)
    outline[:, 1] += 1 - outline[:, 1].max()
    return Subject("blob", (Part(outline, 0, 1.1),), (body,), (), ("hard",))


#: How often each subject is drawn: people and animals lead, as they do in photographs.
SUBJECTS: dict[Callable[[Rng], Subject], float] = {
    person: 3.0,
    portrait: 2.5,
    furry_face: 1.6,
    quadruped: 3.0,
    bird: 1.8,
    fish: 0.8,
    butterfly: 1.0,
    flower: 1.6,
    bottle: 1.0,
    mug: 1.0,
    chair: 0.8,
    bicycle: 0.9,
    car: 1.4,
    fruit: 1.3,
    ball: 0.8,
    torus: 0.8,
    tree: 0.8,
    fern: 0.9,
    dandelion: 0.8,
    glass: 1.0,
    balloon: 0.8,
    veil: 0.7,
    box: 0.9,
    lamp: 0.7,
    spectacles: 0.6,
    guitar: 0.6,
    boat: 0.7,
    blob: 1.0,
}

#: Which subjects can carry which tag, for scenes that are asked for by kind.
_TAGGED: dict[str, tuple[Callable[[Rng], Subject], ...]] = {
    "hard": (person, bottle, mug, car, fruit, ball, box, blob, guitar),
    "holes": (mug, chair, bicycle, torus, spectacles, fern),
    "thin": (chair, bicycle, tree, fern, lamp, spectacles, boat, butterfly),
    "hair": (portrait, furry_face, dandelion),
    "translucent": (glass, balloon, veil, fish),
}


def subjects_tagged(tag: str | None) -> dict[Callable[[Rng], Subject], float]:
    """The subjects that show off `tag`, with how often each is drawn; all of them for None."""
    if tag is None or tag not in _TAGGED:
        return SUBJECTS
    return {make: SUBJECTS[make] for make in _TAGGED[tag]}
