"""Files of weights: checkpoints, other projects' detectors, and what training starts from."""
