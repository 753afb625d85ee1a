"""Tests of paired differences: of arms, over replicates, data sets or patients."""
