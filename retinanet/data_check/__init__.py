"""What a data set is like for this network, before training on it."""
