"""What layouts of image files share."""
