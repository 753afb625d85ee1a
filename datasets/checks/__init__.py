"""Problems of a data set that are reported before training."""
