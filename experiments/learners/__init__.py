"""Opponents, that is other learners to compare with. They have the methods of an SB3 algorithm."""
