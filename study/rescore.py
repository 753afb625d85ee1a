"""Scores of a finished stage at another threshold, without its network."""

from results.thresholds import at_threshold, on_grid
from study.plan import Scoring
from study.store import Store


def can_rescore(store: Store, digest: str, scoring: Scoring) -> bool:
    """Return whether scores are there, or follow from those at another threshold."""
    return store.scored(digest, scoring.key) or _source(store, digest, scoring) is not None


def rescore(store: Store, digest: str, scoring: Scoring) -> bool:
    """Make sure of the scores without a network; False where one is needed."""
    if store.scored(digest, scoring.key):
        return True
    known = _source(store, digest, scoring)
    if known is None:
        return False
    import pyarrow.parquet as pq

    tables = pq.read_table(store.scores(digest, known)), pq.read_table(store.images(digest, known))
    store.add_scores(digest, scoring.key, *at_threshold(*tables, scoring.threshold))
    return True


def _source(store: Store, digest: str, scoring: Scoring) -> str | None:
    """Return the key of scores that these follow from."""
    follows = scoring.class_threshold is None and on_grid(scoring.threshold)
    return store.other_threshold(digest, scoring.examined) if follows else None
