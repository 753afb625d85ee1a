"""Images with polygons that labelling tools export."""
