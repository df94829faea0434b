"""Calibration: what is learned for one model on the user's machine, in minutes, without a data set."""
