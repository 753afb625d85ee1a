"""Encoders of the libraries by name, and modified or additional ones."""
