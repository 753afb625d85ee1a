"""Forecasts of learning curves beyond the largest measured amount of labels."""
