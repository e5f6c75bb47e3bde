"""The page in a browser on which the visitor is the applicant: ``python -m experiments.app``."""
