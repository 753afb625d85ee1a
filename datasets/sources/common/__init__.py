"""Common code of layouts of image files."""
