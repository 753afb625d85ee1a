"""Learning curves with a known continuation: simulated ones of many shapes, and measured ones of real learners."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from results.metrics.formulas import FloatArray
from results.statistics.forecast.mixture import Bounds, Forecast, forecast
from tests.simulation.designs import document
from tests.simulation.studies import Simulated, headline_values
from tests.simulation.worlds import BALANCED, STEEP, TRAINING, Learner

Shape = Callable[[FloatArray], FloatArray]
MULTIPLES = (2, 4)
"""Held-out amounts, in multiples of the largest measured one."""
UNIT = Bounds(0.0, 1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class LearningCurve:
    """`values` (amounts, replicates) at measured `images`, and the mean of the replicates at twice and four times."""

    kind: str
    images: FloatArray
    values: FloatArray
    held_out: FloatArray

    def forecast(self) -> Forecast:
        """Forecast the held-out means."""
        return forecast(self.values, self.images, self.images[-1] * np.array(MULTIPLES), UNIT)

    def covered(self) -> list[bool]:
        """Return whether each interval contains the held-out mean."""
        forecast_ = self.forecast()
        bounds = zip(forecast_.low, self.held_out, forecast_.high, strict=True)
        return [bool(low <= mean <= high) for low, mean, high in bounds]


def _power(random: np.random.Generator, low: float, high: float) -> Shape:
    exponent = random.uniform(0.2, 1.5)
    return lambda n: high - (high - low) * n**-exponent


def _exponential(random: np.random.Generator, low: float, high: float) -> Shape:
    decay = random.uniform(1, 12)
    return lambda n: high - (high - low) * np.exp(-(n - 1) / decay)


def _gaussian(random: np.random.Generator, low: float, high: float) -> Shape:
    slope = random.uniform(0.02, 0.1)

    def curve(n: FloatArray) -> FloatArray:
        gaps = np.sqrt(3) * np.abs(np.log(n)[:, None] - np.log(n)) / 1.5
        covariance = 0.02**2 * (1 + gaps) * np.exp(-gaps) + 1e-10 * np.eye(len(n))
        return low + slope * np.log(n) + np.linalg.cholesky(covariance) @ random.standard_normal(len(n))

    return curve


def _shifted_power(random: np.random.Generator, low: float, high: float) -> Shape:
    exponent, shift = random.uniform(0.3, 1.5), random.uniform(0, 5)
    return lambda n: high - (high - low) * ((n + shift) / (1 + shift)) ** -exponent


def _logistic(random: np.random.Generator, low: float, high: float) -> Shape:
    middle, width = random.uniform(0, 2.5), random.uniform(0.5, 1.2)
    return lambda n: low + (high - low) / (1 + np.exp(-(np.log(n) - middle) / width))


def _kinked(random: np.random.Generator, low: float, high: float) -> Shape:
    kink, before, after = random.uniform(2, 8), random.uniform(0.03, 0.12), random.uniform(0, 0.05)
    return lambda n: low + before * np.log(np.minimum(n, kink)) + after * np.log(np.maximum(n / kink, 1))


def _flat(random: np.random.Generator, low: float, high: float) -> Shape:
    return lambda n: np.full(len(n), high)


SHAPES: Mapping[str, Callable[[np.random.Generator, float, float], Shape]] = {
    "power law": _power, "exponential": _exponential, "Gaussian process": _gaussian,
    "shifted power law": _shifted_power, "logistic in log(n)": _logistic, "kinked line in log(n)": _kinked,
    "flat": _flat,
}  # fmt: skip
"""Makers of curves over multiples of the smallest amount; the first three are families of the forecast."""


def simulated_curves(kind: str, count: int, *, seed: int = 0) -> Iterator[LearningCurve]:
    """Draw learning curves of one shape, with 4 to 7 amounts, 3 to 15 replicates and noise of 0.005 to 0.05.

    Replicates differ by a constant too, such as that of their test images. Noise shrinks with the amount of labels in
    half of the curves, and is correlated between amounts in half of them.
    """
    random = np.random.default_rng([seed, list(SHAPES).index(kind)])
    for _ in range(count):
        amounts, step = int(random.integers(4, 8)), random.choice([1.5, 2.0, 2.5])
        multiples = step ** np.arange(amounts)
        multiples = np.append(multiples, multiples[-1] * np.array(MULTIPLES))
        high = random.uniform(0.6, 0.98)
        curve = SHAPES[kind](random, random.uniform(0.1, high - 0.15), high)(multiples)
        replicates = int(random.choice([3, 5, 10, 15]))
        noise = np.exp(random.uniform(np.log(0.005), np.log(0.05))) * multiples ** -random.choice([0.0, 0.25])
        values = curve + random.uniform(0, 0.08) * random.standard_normal((replicates, 1))
        gaps = np.abs(np.log(multiples)[:, None] - np.log(multiples))
        correlation = np.exp(-gaps) if random.random() < 0.5 else np.eye(len(gaps))
        drawn = random.standard_normal((replicates, len(multiples))) @ np.linalg.cholesky(correlation).T
        values = np.clip(values + noise * drawn, 0, 1)
        yield LearningCurve(
            kind=kind, images=8 * multiples[:amounts], values=values[:, :amounts].T,
            held_out=values[:, amounts:].mean(axis=0),
        )  # fmt: skip


SEGMENTATION: Mapping[str, Learner] = {"balanced": BALANCED, "training": TRAINING, "steep": STEEP}


def segmentation_curves(name: str, count: int, *, seed: int = 0) -> Iterator[LearningCurve]:
    """Measure learning curves of a cheap pixel classifier, on the splits of planned studies (`tests.simulation`)."""
    levels = (0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0)
    plan = document(folds=5, seeds=2, arms=1, images=150, labelled=levels)
    simulated = Simulated(name=name, document=plan, learner=SEGMENTATION[name])
    values = headline_values(simulated, count, seed=seed)[:, 0].reshape(count, len(levels), -1)
    for curve in values:
        yield LearningCurve(
            kind=f"segmentation, {name}", images=120 * np.array(levels[:-2]), values=curve[:-2],
            held_out=curve[-2:].mean(axis=1),
        )  # fmt: skip


@lru_cache
def classifier_curves(*, quick: bool = False) -> tuple[LearningCurve, ...]:
    """Measure the accuracy of scikit-learn's classifiers on its bundled data sets over amounts of labels.

    Each learner and data set is measured in several windows of amounts; folds and orders of labels differ by window.
    """
    from sklearn import datasets
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import RidgeClassifier
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier

    learners = {
        "naive Bayes": GaussianNB, "nearest neighbours": lambda: KNeighborsClassifier(3),
        "ridge": RidgeClassifier, "tree": lambda: DecisionTreeClassifier(random_state=0),
        "support vectors": lambda: SVC(C=10), "forest": lambda: RandomForestClassifier(20, random_state=0),
    }  # fmt: skip
    digits, classes_of_digits = datasets.load_digits(return_X_y=True)
    diabetes, progression = datasets.load_diabetes(return_X_y=True)
    sets = {
        "digits": (digits, classes_of_digits),
        "odd digits": (digits, classes_of_digits % 2),
        "breast cancer": datasets.load_breast_cancer(return_X_y=True),
        "diabetes": (diabetes, progression > np.median(progression)),
    }
    if quick:
        learners = {name: learners[name] for name in ("naive Bayes", "nearest neighbours", "ridge", "tree")}
    curves = []
    for data, (raw, classes) in sets.items():
        features = (raw - raw.mean(axis=0)) / (raw.std(axis=0) + 1e-9)
        for number, (learner, make) in enumerate(learners.items()):
            for window in range(1 if quick else 3):
                curve = _accuracies(make, features, classes, seed=100 * number + window, window=window)
                curves.append(replace(curve, kind=f"{learner} on {data}"))
    return tuple(curves)


def _accuracies(
    make: Callable[[], object], features: FloatArray, classes: FloatArray, *, seed: int, window: int
) -> LearningCurve:
    """Return the curve of a learner over 4 to 6 amounts and two held-out ones, of which the last is all images.

    Five folds by two orders of the labels; a larger amount contains the smaller ones.
    """
    random = np.random.default_rng(seed)
    training = len(classes) * 4 // 5
    amounts = 4 + window
    step = [2.0, 1.7, 1.5][window]
    multiples = np.append(step ** np.arange(amounts), step ** (amounts - 1) * np.array(MULTIPLES))
    sizes = (training / multiples[-1] * multiples).astype(int)
    scores = np.zeros((len(sizes), 10))
    for order in range(2):
        rows = random.permutation(len(classes))
        for fold in range(5):
            test = rows[fold::5]
            labelled = random.permutation(np.setdiff1d(rows, test))
            for position, size in enumerate(sizes):
                model: object = make()
                model.fit(features[labelled[:size]], classes[labelled[:size]])  # type: ignore[attr-defined]
                accuracy = model.score(features[test], classes[test])  # type: ignore[attr-defined]
                scores[position, 5 * order + fold] = accuracy
    return LearningCurve(
        kind="", images=sizes[:amounts].astype(np.float64), values=scores[:amounts],
        held_out=scores[amounts:].mean(axis=1),
    )  # fmt: skip
