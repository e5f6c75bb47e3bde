"""Runs, sweeps, evaluations and reports: the one place where `jobrec_gym` and `dynaq_algo` meet."""
