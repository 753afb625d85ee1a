"""Tables of comparisons as text."""
