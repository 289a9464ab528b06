"""Evaluation of fusion methods on a data set: the command `chorus-eval`."""
