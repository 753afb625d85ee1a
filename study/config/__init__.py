"""The study file: its schema, how it is read and what is reported about it."""
