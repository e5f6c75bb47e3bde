"""The page in a browser on which one is the applicant: ``python -m experiments.app``."""
