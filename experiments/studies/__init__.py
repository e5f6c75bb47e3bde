"""Studies that compare several learners."""
