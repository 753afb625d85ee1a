"""Earlier statistical rules of the product, as formulas over headline scores (studies, arms, levels, seeds, folds).

The bench reports them with the current rules, to show which error each current rule prevents.
"""

import numpy as np
from scipy import optimize, stats

from tests.simulation.worlds import Array


def differences(values: Array, level: int = -1) -> Array:
    """Return the differences of the last arm to the first by replicate, (studies, replicates)."""
    return (values[:, -1, level] - values[:, 0, level]).reshape(len(values), -1)


def paired_t_p(replicates: Array, ratio: float = 0.0) -> Array:
    """Return two-sided p of a paired t-test over replicates; `ratio` is Nadeau and Bengio's correction."""
    n = replicates.shape[-1]
    error = replicates.std(axis=-1, ddof=1) * np.sqrt(1 / n + ratio)
    return np.asarray(2 * stats.t.sf(np.abs(replicates.mean(axis=-1) / error), n - 1))


def fold_interval_misses(values: Array, level: int) -> float:
    """Return the share of t intervals over fold means that do not contain the expected score."""
    scores = values[:, :, level]
    folds = scores.mean(axis=2)
    n = folds.shape[-1]
    half_width = stats.t.ppf(0.975, n - 1) * folds.std(axis=-1, ddof=1) / np.sqrt(n)
    return float((np.abs(folds.mean(axis=-1) - scores.mean()) > half_width).mean())


def called_worse_than_selected_best(values: Array, ratio: float) -> float:
    """Return the share of studies in which an arm differs from the best, with Holm's correction over the other arms."""
    scores = values[:, :, -1].reshape(*values.shape[:2], -1)
    best = scores.mean(axis=-1).argmax(axis=1)
    p = paired_t_p(scores - scores[np.arange(len(scores)), best][:, None], ratio)
    p[np.arange(len(scores)), best] = np.nan
    # Holm rejects something if and only if Bonferroni does.
    return float((np.nanmin(p, axis=1) * (scores.shape[1] - 1) < 0.05).mean())


def labels_needed(values: Array, images: Array) -> tuple[float, float]:
    """Return the shares of studies in which the baseline does not reach the last arm, or needs 1.25 times its labels.

    The isotonic curve of the baseline is inverted at the arm's mean with the fewest labels, without any test.
    """
    means = values.mean(axis=(3, 4))
    not_reached = needed_more = 0
    for baseline, arm in zip(means[:, 0], means[:, -1, 0], strict=True):
        curve = optimize.isotonic_regression(baseline).x
        not_reached += arm > curve[-1]
        needed = np.interp(arm, curve, images) if curve[0] < arm <= curve[-1] else images[0]
        needed_more += needed >= 1.25 * images[0]
    return not_reached / len(means), needed_more / len(means)


def best_arm_lacks_replicates(values: Array) -> float:
    """Return the share of studies in which the arm with the best mean lacks replicates."""
    scores = values[:, :, -1].reshape(*values.shape[:2], -1)
    best = np.nanmean(scores, axis=-1).argmax(axis=1)
    return float(np.isnan(scores[np.arange(len(scores)), best]).any(axis=-1).mean())
