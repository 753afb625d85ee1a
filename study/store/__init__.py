"""Finished stages and study folders, in a folder or a bucket."""
