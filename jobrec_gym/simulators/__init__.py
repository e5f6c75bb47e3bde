"""Simulated applicants: who answers a recommendation with a decision."""
