"""Encoders: the library's, found by name, and those the library lacks."""
