"""Anatomy of generated chests: patient parameters and outlines, in fractions of the image side."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""(points, 2): x, y; 0..1 is the image."""

LUNG = (
    (0.42, 0.00), (0.66, 0.06), (0.84, 0.22), (0.95, 0.45), (1.00, 0.70), (1.00, 0.90), (0.97, 1.00),
    (0.83, 0.93), (0.58, 0.86), (0.30, 0.87), (0.08, 0.92), (0.02, 0.75), (0.00, 0.52), (0.06, 0.30), (0.18, 0.09),
)  # fmt: skip
"""Outline of a lung: from medial (0) to lateral (1), from apex (0) to the costophrenic angle (1)."""


@dataclass(frozen=True, kw_only=True)
class Patient:
    """Parameters common to all images of a patient; lengths in fractions of the image side."""

    lung_width: float
    lung_height: float
    mediastinum: float
    heart_width: float
    heart_height: float
    heart_tilt: float
    rib_slope: float
    ribs: int
    body: float
    fat: float
    cardiomegaly: bool
    diseased: bool

    @property
    def group(self) -> str:
        """Finding group of the patient."""
        return "opacity" if self.diseased else "cardiomegaly" if self.cardiomegaly else "normal"


def draw_patient(random: np.random.Generator) -> Patient:
    """Sample a patient. About half have opacities in some of their images, a quarter an enlarged heart."""
    cardiomegaly = bool(random.random() < 0.25)
    return Patient(
        lung_width=random.uniform(0.23, 0.29),
        lung_height=random.uniform(0.55, 0.68),
        mediastinum=random.uniform(0.045, 0.065),
        heart_width=random.uniform(0.185, 0.21) if cardiomegaly else random.uniform(0.12, 0.15),
        heart_height=random.uniform(0.14, 0.18),
        heart_tilt=random.uniform(0.3, 0.7),
        rib_slope=random.uniform(0.03, 0.08),
        ribs=int(random.integers(8, 11)),
        body=random.uniform(0.42, 0.48),
        fat=random.uniform(0.0, 1.0),
        cardiomegaly=cardiomegaly,
        diseased=bool(random.random() < 0.55),
    )


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Pose of the patient in one image: midline, top of the lungs, tilt in radians, depth of inspiration."""

    middle: float
    top: float
    tilt: float
    breath: float

    def place(self, points: Points) -> Points:
        """Rotate outlines about the centre of the image."""
        turn = np.array([[np.cos(self.tilt), -np.sin(self.tilt)], [np.sin(self.tilt), np.cos(self.tilt)]])
        return np.asarray((points - 0.5) @ turn.T + 0.5)


def draw_pose(random: np.random.Generator, *, tilt: float) -> Pose:
    """Sample a pose; `tilt` is the standard deviation of the tilt in radians."""
    return Pose(
        middle=0.5 + random.uniform(-0.025, 0.025),
        top=random.uniform(0.12, 0.18),
        tilt=random.normal(0, tilt),
        breath=random.uniform(0.9, 1.05),
    )


def smooth(corners: Sequence[tuple[float, float]] | Points, *, steps: int = 8) -> Points:
    """Return a closed Catmull-Rom spline through the corners."""
    p1 = np.asarray(corners, np.float64)
    p0, p2, p3 = np.roll(p1, 1, 0), np.roll(p1, -1, 0), np.roll(p1, -2, 0)
    t = (np.arange(steps) / steps)[None, :, None]
    a, b, c, d = (p[:, None, :] for p in (p0, p1, p2, p3))
    curve = 2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    return np.asarray(curve / 2).reshape(-1, 2)


def lung(patient: Patient, pose: Pose, *, side: int) -> Points:
    """Return the outline of the right (side -1, left in the image) or left (+1) lung."""
    u, v = np.array(LUNG).T
    height = patient.lung_height * pose.breath * (1.0 if side < 0 else 1.02)
    x = pose.middle + side * (patient.mediastinum + u * patient.lung_width)
    return pose.place(smooth(np.stack([x, pose.top + v * height], 1)))


def heart(patient: Patient, pose: Pose) -> Points:
    """Return the outline of the heart: a tilted, slightly pointed oval left of the middle, on the diaphragm."""
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    x, y = patient.heart_width * np.cos(angle), patient.heart_height * np.sin(angle)
    x *= 1 + 0.12 * np.sin(angle)
    turned = np.stack([x - patient.heart_tilt * 0.25 * y, y + patient.heart_tilt * 0.35 * x], 1)
    bottom = pose.top + patient.lung_height * pose.breath * 0.93
    return pose.place(
        turned + np.array([pose.middle + 0.03 + 0.25 * patient.heart_width, bottom - patient.heart_height])
    )


def body(patient: Patient, pose: Pose) -> Points:
    """Return the outline of shoulders and trunk."""
    half = patient.body
    corners = [(-0.09, -0.1), (0.09, -0.1), (0.10, 0.05), (half * 0.85, 0.11), (half, 0.25), (half * 0.94, 0.6)]
    right = [*corners[1:], (half * 0.98, 1.1)]
    left = [(-x, y) for x, y in reversed(right)]
    return pose.place(smooth(np.array([*right, *left]) + np.array([pose.middle, 0.0])))


def ribs(patient: Patient, pose: Pose) -> list[Points]:
    """Return lines of the posterior ribs, curved outwards from the spine, and of the steeper anterior ribs."""
    lines = []
    along = np.linspace(0, 1, 16)
    height = patient.lung_height * pose.breath
    for number in range(patient.ribs):
        top = pose.top - 0.01 + height * (number + 0.2) / patient.ribs
        reach = (patient.mediastinum + patient.lung_width) * min(1.0, 0.62 + 0.13 * number) * 1.02
        for side in (-1, 1):
            x = pose.middle + side * (0.03 + reach * np.sin(along * 1.6) / np.sin(1.55))
            y = top - patient.rib_slope * np.sin(along * 2.2) + (0.10 + patient.rib_slope) * along**3
            lines.append(pose.place(np.stack([x, y], 1)))
            inner = pose.middle + side * (reach * (1.0 - 0.62 * along))
            lower = top + 0.10 + patient.rib_slope + 0.12 * along**0.8
            lines.append(pose.place(np.stack([inner, lower], 1)))
    return lines


def clavicles(patient: Patient, pose: Pose) -> list[Points]:
    """Return the lines of both clavicles."""
    along = np.linspace(0, 1, 16)
    rise = 0.05 * np.sin(along * np.pi) - 0.05 * along
    return [
        pose.place(np.stack([pose.middle + side * (0.04 + 0.34 * along), pose.top + 0.07 + rise], 1))
        for side in (-1, 1)
    ]


def draw_tube(pose: Pose, random: np.random.Generator) -> Points:
    """Sample the line of an endotracheal or a nasogastric tube."""
    length = random.choice([0.30, 0.85])
    along = np.linspace(0, 1, 32)
    x = pose.middle + random.uniform(-0.02, 0.02) + 0.015 * np.sin(along * random.uniform(2, 5))
    x = x + (0.12 * np.clip(along - 0.75, 0, 1) if length > 0.5 else 0)
    return pose.place(np.stack([x, along * length], 1))


def draw_opacities(
    patient: Patient, pose: Pose, random: np.random.Generator
) -> tuple[tuple[float, float, float, float], ...]:
    """Sample one to three blobs (x, y, radius, density), mostly in the lower and outer lungs."""
    blobs = []
    for _ in range(int(random.integers(1, 4))):
        side = int(random.choice([-1, 1]))
        x = pose.middle + side * (patient.mediastinum + patient.lung_width * random.uniform(0.3, 0.85))
        y = pose.top + patient.lung_height * pose.breath * random.uniform(0.3, 0.8)
        spot = pose.place(np.array([[x, y]]))[0]
        blobs.append((float(spot[0]), float(spot[1]), random.uniform(0.05, 0.11), random.uniform(0.75, 1.2)))
    return tuple(blobs)
