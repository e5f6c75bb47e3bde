"""Opponents behind the verbs of an SB3 algorithm, one idea a file."""
