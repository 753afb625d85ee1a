"""Initial weights and weights carried between stages."""
