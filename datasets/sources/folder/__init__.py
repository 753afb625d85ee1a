"""User data: images, masks and optional tables, matched by name."""
