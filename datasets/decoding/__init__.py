"""Image files and DICOM as arrays."""
