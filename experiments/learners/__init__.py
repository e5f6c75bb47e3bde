"""Opponents with the methods of an SB3 algorithm, one idea in each file."""
