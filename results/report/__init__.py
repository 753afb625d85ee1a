"""Text and layout of the report page."""
