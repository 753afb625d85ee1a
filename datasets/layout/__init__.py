"""Recognise how a downloaded data set is laid out, and propose the settings that read it where it is."""
