"""What was read from data sets, stored on this machine."""
