"""Prepared images, augmentation and batches."""
