"""Derive the scores of a finished stage at another threshold, without its network."""

from results.metrics.thresholds import at_threshold
from study.planning.graph import Scoring
from study.planning.pending import rescoring_source
from study.store.store import Store


def rescore(store: Store, digest: str, scoring: Scoring) -> bool:
    """Add the scores of a scoring without a network; return False if the network is needed."""
    if store.scored(digest, scoring.key):
        return True
    source = rescoring_source(store, digest, scoring)
    if source is None:
        return False
    import pyarrow.parquet as pq

    tables = pq.read_table(store.scores(digest, source)), pq.read_table(store.images(digest, source))
    store.add_scores(digest, scoring.key, *at_threshold(*tables, scoring.threshold))
    return True
