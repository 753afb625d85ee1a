"""Raw data sets of nnU-Net."""
