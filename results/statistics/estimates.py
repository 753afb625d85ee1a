"""Estimates of means with Student t intervals, p-values and posteriors, as pure functions of arrays.

Undefined values are NaN.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from results.metrics.formulas import FloatArray

Labels = tuple[int, ...]
"""Group of each replicate; replicates of one group share a pretraining run."""
NO_VARIATION = 1e-12
"""Relative to the mean (or to 1), a smaller standard deviation is rounding error."""
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True, eq=False)
class Estimates:
    """Means with standard errors and degrees of freedom from one or more tests, arrays of shape (tests, ...).

    With several tests p is the largest and the interval the widest of them; NaN in one test is NaN in the result.
    `mean` and `sd` have shape (...), `pairs` counts the values behind them.
    """

    mean: FloatArray
    sd: FloatArray
    pairs: FloatArray
    error: FloatArray
    freedom: FloatArray

    @property
    def statistic(self) -> FloatArray:
        """Return t of the test with the largest p, shape (...)."""
        return _select(self.mean / self.error, self._decisive)

    @property
    def decisive_freedom(self) -> FloatArray:
        """Return the degrees of freedom of the test with the largest p."""
        return _select(self.freedom, self._decisive)

    @property
    def p(self) -> FloatArray:
        """Return two-sided p, the largest of the tests."""
        return np.asarray(self._every_p.max(axis=0))

    @property
    def half_width(self) -> FloatArray:
        """Return half the width of the widest 95 % interval."""
        return np.asarray(self._half_widths.max(axis=0))

    @property
    def decided_by(self) -> NDArray[np.int64]:
        """Return the number of the test with the largest p."""
        return self._decisive

    def interval(self) -> tuple[FloatArray, FloatArray]:
        """Return the ends of the 95 % interval."""
        return self.mean - self.half_width, self.mean + self.half_width

    def logit_interval(self) -> tuple[FloatArray, FloatArray]:
        """Return the ends of the 95 % interval of a mean within 0..1, by the delta method on the logit.

        NaN where the mean is exactly 0 or 1.
        """
        from scipy.special import expit, logit

        inside = (self.mean > 0) & (self.mean < 1)
        mean = np.where(inside, self.mean, np.nan)
        half = self.half_width / (mean * (1 - mean))
        return np.asarray(expit(logit(mean) - half)), np.asarray(expit(logit(mean) + half))

    def posterior(self, rope: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the probabilities that the mean is above `rope`, within -rope..rope, and below -rope.

        Bayesian correlated t-test (Corani and Benavoli 2015): a t distribution around the mean, of the test with the
        widest interval.
        """
        from scipy.special import stdtr

        widest = _argmax(self._half_widths)
        error, freedom = _select(self.error, widest), _select(self.freedom, widest)
        above = stdtr(freedom, (self.mean - rope) / error)
        below = stdtr(freedom, (-rope - self.mean) / error)
        return above, 1 - above - below, below

    @property
    def _every_p(self) -> FloatArray:
        from scipy.special import stdtr

        return np.asarray(2 * stdtr(self.freedom, -np.abs(self.mean / self.error)))

    @property
    def _half_widths(self) -> FloatArray:
        return _t_quantile(0.5 + CONFIDENCE / 2, self.freedom) * self.error

    @property
    def _decisive(self) -> NDArray[np.int64]:
        return _argmax(self._every_p)


def corrected(
    values: FloatArray, ratio: float, shared: Sequence[Labels] = (), repeated: Labels | None = None
) -> Estimates:
    """Estimate the mean of replicates that share training data, (..., replicates) with NaN where undefined.

    The variance is s^2 (1/n + ratio) with n - 1 degrees of freedom (Nadeau and Bengio 2003), `ratio` being test to
    training cases. `repeated` labels replicates that share their fold because the split has a fixed seed: they are
    averaged first, so that n counts folds. For each grouping in `shared` a t-test over the group means is added;
    a grouping with one group makes p and the interval NaN, because the variance between groups cannot be estimated.
    """
    mean, sd, n = moments(values if repeated is None else group_means(values, repeated))
    testable = varies(sd, mean) & (n >= 2)
    tests = [(np.where(testable, sd * np.sqrt(1 / np.maximum(n, 1) + ratio), np.nan), n - 1)]
    for labels in shared:
        means = group_means(values, labels)
        _, group_sd, groups = moments(means)
        enough = testable & (groups >= 2)
        # Equal group means have no variance to estimate: only the test over replicates decides.
        error = np.where(varies(group_sd, mean), group_sd / np.sqrt(np.maximum(groups, 1)), tests[0][0] * 1e-9)
        tests.append((np.where(enough, error, np.nan), groups - 1))
    error, freedom = (np.stack(np.broadcast_arrays(*column)) for column in zip(*tests, strict=True))
    return Estimates(mean=mean, sd=sd, pairs=n, error=error, freedom=np.where(freedom >= 1, freedom, np.nan))


def independent(values: FloatArray) -> Estimates:
    """Estimate the mean of independent values (..., n) with NaN where undefined: Student's t."""
    return corrected(values, 0.0)


def group_means(values: FloatArray, labels: Labels) -> FloatArray:
    """Return the mean of each group of (..., replicates) as (..., groups); NaN where a group has no value."""
    member = np.asarray(labels)[:, None] == np.unique(labels)
    defined = ~np.isnan(values)
    counts = defined.astype(np.float64) @ member
    sums = np.where(defined, values, 0.0) @ member.astype(np.float64)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def moments(values: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return mean, standard deviation and count over the last axis; NaN where undefined."""
    defined = ~np.isnan(values)
    n = defined.sum(axis=-1).astype(np.float64)
    mean = np.where(defined, values, 0.0).sum(axis=-1) / np.where(n > 0, n, np.nan)
    squares = np.where(defined, (values - mean[..., None]) ** 2, 0.0).sum(axis=-1)
    return mean, np.sqrt(squares / np.where(n > 1, n - 1, np.nan)), n


def varies(sd: FloatArray, mean: FloatArray) -> NDArray[np.bool_]:
    """Return whether a standard deviation exceeds rounding error; False where it is NaN."""
    return np.asarray(sd > NO_VARIATION * np.maximum(np.abs(mean), 1.0))


def hedges_g(effect_size: FloatArray, freedom: FloatArray) -> FloatArray:
    """Return d_z without its bias in small samples (Hedges 1981, the exact factor)."""
    from scipy.special import gammaln

    freedom = np.where(freedom >= 2, freedom, np.nan)
    factor = np.exp(gammaln(freedom / 2) - gammaln((freedom - 1) / 2)) / np.sqrt(freedom / 2)
    return np.asarray(effect_size * factor)


def rounded(differences: FloatArray) -> FloatArray:
    """Round to 12 decimals, so that ties are equal in spite of rounding errors."""
    return np.asarray(np.round(differences, 12))


def holm(p: FloatArray, pending: int = 0) -> FloatArray:
    """Return p adjusted over axis 0 (Holm 1979); NaN stays NaN and does not count.

    `pending` counts further tests of the family whose p is not known yet.
    """
    # statsmodels' multipletests collects garbage at every call: seconds where a study has many metrics.
    order = np.argsort(p, axis=0)  # NaN last
    tests = np.count_nonzero(~np.isnan(p), axis=0) + pending
    rank = np.arange(len(p)).reshape(-1, *[1] * (p.ndim - 1))
    stepped = np.take_along_axis(p, order, axis=0) * np.maximum(tests - rank, 1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(np.fmax.accumulate(stepped, axis=0), 1.0), axis=0)
    return np.where(np.isnan(p), np.nan, adjusted)


def _t_quantile(p: float, freedom: FloatArray) -> FloatArray:
    from scipy.special import stdtrit  # imports ten times faster than scipy.stats

    return np.asarray(stdtrit(freedom, p))


def _argmax(values: FloatArray) -> NDArray[np.int64]:
    """Return the index of the largest value along axis 0; NaN counts as largest."""
    return np.asarray(np.argmax(np.where(np.isnan(values), np.inf, values), axis=0))


def _select(values: FloatArray, index: NDArray[np.int64]) -> FloatArray:
    return np.asarray(np.take_along_axis(values, index[None], axis=0)[0])
