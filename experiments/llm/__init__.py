"""Language models as simulated applicants: checked, recorded, served, shown."""
