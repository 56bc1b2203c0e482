"""Drawing canvas of the demo data: shapes, textures, haze and simulated camera effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Colour: TypeAlias = tuple[int, int, int]
Point: TypeAlias = tuple[float, float]
Quad: TypeAlias = tuple[Point, Point, Point, Point]

SIDE = 256
# Drawn larger and resized at the end, which antialiases every edge.
_DRAWN = 3 * SIDE // 2


@dataclass(frozen=True)
class Mood:
    """Weather and time of day: colours of the sky, brightness of the land, and haze (0 to 1)."""

    sky_top: Colour
    sky_low: Colour
    light: float
    haze: float


MOODS = (
    Mood((82, 138, 215), (190, 215, 240), 1.0, 0.05),
    Mood((150, 158, 168), (205, 208, 212), 0.85, 0.15),
    Mood((58, 56, 104), (238, 158, 104), 0.6, 0.1),
    Mood((196, 200, 204), (214, 216, 216), 0.9, 0.4),
    Mood((120, 170, 225), (236, 228, 206), 1.1, 0.1),
)


class Canvas:
    """A square image to draw on; x and y run from 0 to 1, right and down."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.mood = MOODS[int(rng.integers(len(MOODS)))]
        self.image = Image.new("RGB", (_DRAWN, _DRAWN))
        self._draw = ImageDraw.Draw(self.image)

    def between(self, low: float, high: float) -> float:
        """Return a number drawn uniformly from [low, high)."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return bool(self.rng.random() < probability)

    def pick(self, colours: Sequence[Colour], spread: float = 18.0) -> Colour:
        """Return one of ``colours``, varied by about ``spread`` grey levels and lit by the mood."""
        base = np.array(colours[int(self.rng.integers(len(colours)))], dtype=np.float64)
        base += self.rng.normal(0, spread) + self.rng.normal(0, spread / 3, 3)
        return _colour(base * self.mood.light)

    def distant(self, colour: Colour, distance: float) -> Colour:
        """Return ``colour`` seen through haze at ``distance``, 0 (here) to 1 (the horizon)."""
        share = min(0.9, distance * (0.35 + self.mood.haze))
        return mix(colour, self.mood.sky_low, share)

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        self._draw.polygon(_scaled(points), fill=colour)

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """Draw a line of ``width`` (1 is the side of the image)."""
        pixels = max(1, round(width * _DRAWN))
        self._draw.line(_scaled(points), fill=colour, width=pixels, joint="curve")

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        if x1 > x0 and y1 > y0:
            self._draw.rectangle(_scaled([(x0, y0), (x1, y1)]), fill=colour)

    def disc(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        self._draw.ellipse(_scaled([(x - rx, y - ry), (x + rx, y + ry)]), fill=colour)

    def sky(self) -> None:
        """Fill the image with a graded sky and, in some images, clouds."""
        ramp = np.linspace(0, 1, _DRAWN)[:, None, None]
        top, low = (np.array(c, dtype=np.float64) for c in (self.mood.sky_top, self.mood.sky_low))
        column = top + (low - top) * np.minimum(1, ramp * self.between(1.0, 2.2))
        sky = Image.fromarray(np.uint8(column)).resize((_DRAWN, _DRAWN))
        if self.chance(0.6):
            rows = int(self.rng.integers(4, 12))
            cover = self.noise(rows, rows // 2 + 1, octaves=3)
            threshold, strength = self.between(100, 160), self.between(1, 3)
            cover = cover.point(_ramp(threshold, strength))
            cloud = mix(self.mood.sky_low, (250, 250, 250), self.between(0, 0.8))
            sky = Image.composite(Image.new("RGB", sky.size, cloud), sky, cover)
        self.image.paste(sky)

    def noise(self, rows: int, columns: int, octaves: int = 2) -> Image.Image:
        """Return a grey image of smooth noise, ``rows`` x ``columns`` cells, halved per octave."""
        total = self._octave(rows, columns)
        for octave in range(1, octaves):
            finer = self._octave(rows << octave, columns << octave)
            total = Image.blend(total, finer, 1 / (1 + octave) * 0.7)
        return total

    def _octave(self, rows: int, columns: int) -> Image.Image:
        shape = (min(rows, _DRAWN), min(columns, _DRAWN))
        cells = self.rng.integers(0, 256, shape, dtype=np.uint8)
        return Image.fromarray(cells).resize((_DRAWN, _DRAWN), Image.Resampling.BILINEAR)

    def textured(
        self, points: Sequence[Point], dark: Colour, bright: Colour, noise: Image.Image
    ) -> None:
        """Fill a polygon with ``noise``, with black mapped to ``dark`` and white to ``bright``."""
        channels = [
            noise.point([int(a + (b - a) * v / 255) for v in range(256)])
            for a, b in zip(dark, bright, strict=True)
        ]
        mask = Image.new("1", self.image.size)
        ImageDraw.Draw(mask).polygon(_scaled(points), fill=1)
        self.image.paste(Image.merge("RGB", channels), mask=mask)

    def windows(
        self, quad: Quad, rows: int, columns: int, gaps: Point, colours: Sequence[Colour]
    ) -> None:
        """Draw a grid of window panes on ``quad`` (corners clockwise from the top left).

        ``gaps`` is the fraction of a cell that is wall, across and down; each pane has one of
        ``colours``.
        """
        u = (np.arange(columns)[:, None] + [gaps[0] / 2, 1 - gaps[0] / 2]) / columns
        v = (np.arange(rows)[:, None] + [gaps[1] / 2, 1 - gaps[1] / 2]) / rows
        picks = self.rng.integers(len(colours), size=(rows, columns))
        for row, (v0, v1) in enumerate(v):
            for column, (u0, u1) in enumerate(u):
                corners = [on_quad(quad, *uv) for uv in ((u0, v0), (u1, v0), (u1, v1), (u0, v1))]
                self.polygon(corners, colours[picks[row, column]])

    def finish(self) -> Image.Image:
        """Return the image with simulated camera effects: RGB, ``SIDE`` x ``SIDE``."""
        self._occlude()
        image = self._framed()
        if self.chance(0.5):
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.chance(0.25):
            image = image.filter(ImageFilter.GaussianBlur(self.between(0.3, 0.8)))
        values = np.asarray(image, dtype=np.float32)
        grey = values.mean(axis=2, keepdims=True)
        values = grey + (values - grey) * self.between(0.15, 1.2)  # faded to vivid
        values = (values - 128) * self.between(0.65, 1.15) + 128 + self.between(-35, 35)
        values = values * self.rng.uniform(0.9, 1.1, 3).astype(np.float32)  # white balance
        grain = self.rng.standard_normal((SIDE, SIDE, 1), dtype=np.float32)
        values = values + grain * self.between(2, 8)
        return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))

    def _framed(self) -> Image.Image:
        """Return a slightly rotated and enlarged part of the drawing."""
        zoom, angle = self.between(1.0, 1.3), self.between(-3.5, 3.5)
        room = _DRAWN * (1 - 1 / zoom)
        left, top = self.between(0, room), self.between(0, room)
        turned = self.image.rotate(angle, Image.Resampling.BILINEAR)
        # A rotated square has black corners unless its rim is cut off.
        rim = _DRAWN * 0.035
        edge = _DRAWN / zoom
        box = (left + rim, top + rim, left + edge - rim, top + edge - rim)
        return turned.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box)

    def _occlude(self) -> None:
        """Draw, in some images, a dark object in front that is independent of the class."""
        dark = _colour(np.full(3, self.between(15, 70)))
        if self.chance(0.25):
            x, width = self.between(0, 1), self.between(0.01, 0.04)
            self.box(x, self.between(-0.2, 0.4), x + width, 1, dark)
        if self.chance(0.25):
            corner = self.between(-0.1, 1.1)
            for _ in range(40):
                x, y = corner + self.rng.normal(0, 0.12), abs(self.rng.normal(0, 0.06))
                self.disc(x, y, self.between(0.008, 0.03), self.between(0.006, 0.02), dark)
        if self.chance(0.2):
            x, y = self.between(0, 1), self.between(0.85, 1.05)
            self.disc(x, y, self.between(0.05, 0.2), self.between(0.05, 0.15), dark)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Return the blend of ``a`` with the fraction ``share`` (0 to 1) of ``b``."""
    return _colour(np.array(a) * (1 - share) + np.array(b) * share)


def shade(colour: Colour, factor: float) -> Colour:
    """Return ``colour`` multiplied by ``factor``: darker below 1, brighter above."""
    return _colour(np.array(colour) * factor)


def on_quad(quad: Quad, u: float, v: float) -> Point:
    """Return the point at ``u`` across and ``v`` down a quad, clockwise from its top left."""
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = quad
    p, q, r, s = (1 - u) * (1 - v), u * (1 - v), u * v, (1 - u) * v
    return p * ax + q * bx + r * cx + s * dx, p * ay + q * by + r * cy + s * dy


def _colour(values: np.ndarray) -> Colour:
    red, green, blue = np.clip(values, 0, 255).astype(int).tolist()
    return red, green, blue


def _scaled(points: Sequence[Point]) -> list[Point]:
    return [(x * _DRAWN, y * _DRAWN) for x, y in points]


def _ramp(threshold: float, strength: float) -> list[int]:
    """Return a lookup table: 0 below ``threshold``, then rising by ``strength`` per level."""
    return [int(np.clip((value - threshold) * strength, 0, 255)) for value in range(256)]
