"""The report of a study on one page."""
