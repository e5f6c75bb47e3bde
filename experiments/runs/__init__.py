"""One run: built from its config, trained, recorded, evaluated and read again."""
