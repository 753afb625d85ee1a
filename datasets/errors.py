"""The error that all data checks raise."""


class DataError(ValueError):
    """Raised for data that cannot be used. Messages have the form `problem; allowed: ...; remedy`."""
