"""What changes while a model learns, and the folder and the log of a run."""
