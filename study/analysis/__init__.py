"""From the store to tables: metrics, statistics, comparisons with other studies and papers."""
