"""The study: its file, plan, store, training and command line."""
