"""Tables of a study: metrics, statistics, comparisons with other studies and with papers."""
