"""Simulated applicants, who answer a recommendation with a decision."""
