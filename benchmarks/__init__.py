"""How fast this package is, beside the original's way and torchvision's: `python -m benchmarks`."""
