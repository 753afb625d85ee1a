"""Rendering of generated radiographs: absorption along the beam, then the appearance of a style."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.source import Pixels
from datasets.sources.phantom import anatomy
from datasets.sources.phantom.anatomy import Patient, Points, Pose

Plane = NDArray[np.float32]
StyleName = Literal["a", "b", "c"]

MARK_PLACES = {"L": (0.90, 0.10), "AP": (0.80, 0.14), "R": (0.10, 0.14), "0417": (0.70, 0.92)}
TUBE_WIDTH = 0.009
"""Fraction of the side; a few pixels in small images."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """Appearance of a style. Noise, shading and stripes in fractions of the grey range."""

    contrast: float
    exposure: float
    noise: float
    grain: float
    blur: float
    tilt: float
    border: float
    shading: float
    stripes: float
    marks: tuple[str, ...]


LOOKS: dict[StyleName, Look] = {
    "a": Look(  # upright, digital
        contrast=6.0, exposure=0.50, noise=0.012, grain=0.6, blur=0.4, tilt=0.01, border=0.0, shading=0.05,
        stripes=0.0, marks=("L",),
    ),
    "b": Look(  # portable, supine: flat, bright, noisy, tilted, collimated
        contrast=3.4, exposure=0.41, noise=0.035, grain=0.8, blur=0.8, tilt=0.05, border=0.05, shading=0.15,
        stripes=0.0, marks=("AP", "R"),
    ),
    "c": Look(  # scanned film: hard, dark, grainy, uneven light, stripes
        contrast=8.0, exposure=0.57, noise=0.03, grain=1.8, blur=1.2, tilt=0.02, border=0.02, shading=0.45,
        stripes=0.025, marks=("R", "0417"),
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One image: patient, pose, opacities and tube, rendered at `size` x `size` pixels."""

    size: int
    patient: Patient
    pose: Pose
    blobs: tuple[tuple[float, float, float, float], ...]
    """Opacities: x, y, radius in fractions of the side, density."""
    tube: Points | None
    pattern: int
    """Seed of vessels, noise and the texture of opacities."""

    def filled(self, outline: Points) -> Pixels:
        """Return the (size, size) mask, 0/1, of a closed outline."""
        canvas = np.zeros((self.size, self.size), np.uint8)
        return np.asarray(cv2.fillPoly(canvas, [self._fixed(outline)], 1, shift=4), np.uint8)

    def stroked(self, lines: list[Points], width: float) -> Pixels:
        """Return (size, size) of 0..255 with antialiased lines; `width` is a fraction of the side."""
        canvas = np.zeros((self.size, self.size), np.uint8)
        thickness = max(1, round(width * self.size))
        fixed = [self._fixed(line) for line in lines]
        return np.asarray(cv2.polylines(canvas, fixed, False, 255, thickness, cv2.LINE_AA, 4), np.uint8)

    def _fixed(self, points: Points) -> NDArray[np.int32]:
        return np.rint((points * self.size - 0.5) * 16).astype(np.int32)

    @cached_property
    def lungs(self) -> tuple[Pixels, Pixels]:
        """Masks of right and left lung, 0/1."""
        right, left = (self.filled(anatomy.lung(self.patient, self.pose, side=side)) for side in (-1, 1))
        return right, left

    @cached_property
    def heart(self) -> Pixels:
        """Mask of the heart, 0/1."""
        return self.filled(anatomy.heart(self.patient, self.pose))

    @cached_property
    def density(self) -> Plane:
        """Density of opacities in the lungs, non-negative."""
        field = np.zeros((self.size, self.size), np.float32)
        if not self.blobs:
            return field
        ys, xs = np.mgrid[0 : self.size, 0 : self.size].astype(np.float32) / self.size
        wobble = self._clouds(0.05, seed=1) * 0.5
        for x, y, radius, dense in self.blobs:
            distance = ((xs - x) ** 2 + (ys - y) ** 2) / radius**2
            field = np.maximum(field, np.float32(dense) * np.exp(-distance * np.exp(-wobble)))
        return np.asarray(field * np.maximum(*self.lungs), np.float32)

    def masks(self) -> dict[str, Pixels]:
        """Return (size, size) masks, 0/1, by class; opacities are thresholded at a density of 0.4."""
        line = self.stroked([self.tube], TUBE_WIDTH) > 127 if self.tube is not None else np.zeros_like(self.heart)
        right, left = self.lungs
        return {
            "right_lung": right,
            "left_lung": left,
            "heart": self.heart,
            "opacity": (self.density > 0.4).astype(np.uint8),
            "tube": line.astype(np.uint8),
        }

    def _clouds(self, scale: float, *, seed: int) -> Plane:
        """Return smooth noise of unit variance with a grain size of `scale` (fraction of the side)."""
        cells = max(2, round(1 / scale))
        coarse = np.random.default_rng((self.pattern, seed)).standard_normal((cells, cells), np.float32)
        return np.asarray(cv2.resize(coarse, (self.size, self.size), interpolation=cv2.INTER_CUBIC), np.float32)

    def absorption(self) -> Plane:
        """Return (size, size) absorption, from 0 in air to about 1 in spine and abdomen."""
        patient, pose = self.patient, self.pose
        air = self._soft(np.maximum(*self.lungs), 0.006)
        trunk = self._soft(self.filled(anatomy.body(patient, pose)), 0.02)
        depth = np.linspace(-0.06, 0.10 + 0.06 * patient.fat, self.size, dtype=np.float32)[:, None]
        image = trunk * (0.60 + depth) - 0.40 * air
        image += 0.22 * self._soft(self.heart, 0.008) * (0.35 + 0.65 * air)
        image += 0.16 * self._soft(self._spine(), 0.012)
        cage = self._soft(self.stroked(anatomy.ribs(patient, pose), 0.020), 0.004, 255)
        image += 0.085 * cage * trunk * (0.15 + 0.85 * air)
        image += 0.10 * self._soft(self.stroked(anatomy.clavicles(patient, pose), 0.028), 0.005, 255)
        image += self._vessels() * air * (1 - 0.6 * self.heart)
        image += 0.21 * self.density * (1 + 0.15 * self._clouds(0.02, seed=2))
        if self.tube is not None:
            image += 0.16 * self._soft(self.stroked([self.tube], TUBE_WIDTH), 0.002, 255)
        return np.asarray(image + 0.012 * self._clouds(0.08, seed=3) * trunk, np.float32)

    def _soft(self, layer: Pixels, share: float, full: int = 1) -> Plane:
        blurred = cv2.GaussianBlur(layer.astype(np.float32), (0, 0), max(share * self.size, 0.3))
        return np.asarray(blurred / full, np.float32)

    def _spine(self) -> Pixels:
        pose, y = self.pose, np.linspace(-0.1, 1.1, 23)
        width = 0.034 + 0.006 * np.cos(np.arange(23) * np.pi)
        left, right = (np.stack([pose.middle + side * width, y], 1) for side in (-1, 1))
        return self.filled(pose.place(np.concatenate([left, right[::-1]])))

    def _vessels(self) -> Plane:
        """Return vessels branching from both hila, thinner and fainter outwards."""
        random = np.random.default_rng((self.pattern, 4))
        total = np.zeros((self.size, self.size), np.float32)
        hilum_y = self.pose.top + self.patient.lung_height * 0.45
        for width, reach, strength in ((0.016, 0.10, 0.08), (0.009, 0.17, 0.06), (0.005, 0.25, 0.05)):
            angles = random.uniform(-1.3, 1.3, 18)
            lengths = reach * random.uniform(0.6, 1.1, 18)
            lines = []
            for number, (angle, length) in enumerate(zip(angles, lengths, strict=True)):
                side = 1 if number % 2 else -1
                start = np.array([self.pose.middle + side * self.patient.mediastinum, hilum_y])
                along = np.linspace(0, 1, 6)[:, None] * length
                bend = random.normal(0, 0.3) * np.linspace(0, 1, 6) + angle
                lines.append(start + along * np.stack([side * np.cos(bend), np.sin(bend) * 1.4], 1))
            total += strength * self._soft(self.stroked(lines, width), 0.003, 255)
        return total


def show(scene: Scene, look: Look, random: np.random.Generator) -> Pixels:
    """Render a scene as a (size, size) grey radiograph; more absorption is brighter."""
    size = scene.size
    image = scene.absorption()
    shade = np.linspace(-0.5, 0.5, size, dtype=np.float32) * np.float32(look.shading * random.uniform(-1, 1))
    image += shade[:, None] * 0.3 + shade[None, ::-1] * 0.2
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), max(look.blur * size / 256, 0.3)), np.float32)
    centre = look.exposure + random.uniform(-0.03, 0.03)
    grey = 1 / (1 + np.exp(-look.contrast * random.uniform(0.9, 1.1) * (image - centre)))
    noise = cv2.GaussianBlur(random.standard_normal((size, size), np.float32), (0, 0), look.grain)
    grey += look.noise * noise / noise.std() * (1.3 - grey)
    grey += look.stripes * np.sin(np.arange(size, dtype=np.float32) * random.uniform(0.7, 1.1))[:, None]
    pixels = np.rint(np.clip(grey, 0, 1) * 245 + 5).astype(np.uint8)
    return _framed(pixels, look, random)


def _framed(pixels: Pixels, look: Look, random: np.random.Generator) -> Pixels:
    """Add orientation marks and the black border of the collimation."""
    size = len(pixels)
    for mark in look.marks:
        x, y = MARK_PLACES[mark]
        place = int(x * size), int((y + random.uniform(0, 0.04)) * size)
        thickness = max(1, size // 160)
        cv2.putText(pixels, mark, place, cv2.FONT_HERSHEY_SIMPLEX, size / 420, 240, thickness, cv2.LINE_AA)
    edges = np.rint(random.uniform(0.2, 1.6, 4) * look.border * size).astype(int)
    framed = np.full_like(pixels, 3)
    rows, columns = slice(edges[0], size - edges[1]), slice(edges[2], size - edges[3])
    framed[rows, columns] = pixels[rows, columns]
    return framed
