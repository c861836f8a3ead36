"""Look at a data set with the eyes of this network, before training; it trains nothing."""
