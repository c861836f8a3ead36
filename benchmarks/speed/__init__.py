"""Time and memory of a step, a detection, an evaluation and their parts."""
