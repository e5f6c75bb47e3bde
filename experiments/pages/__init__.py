"""The report's page: its sections, pictures, words and tables."""
