"""Results from outside of the platform, as studies of a storage."""
