"""What is wrong with data, said so that a newcomer can mend it."""


class DataError(ValueError):
    """Data that cannot be used. The message reads `what; allowed: ...; remedy`."""
