"""From inputs of networks to probabilities of whole images: test-time augmentation, windows, bands of rows."""
