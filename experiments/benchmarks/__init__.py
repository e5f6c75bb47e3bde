"""The measurements of ``python -m experiments.benchmark``, one module for each subject."""
