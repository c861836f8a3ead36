"""The process of a run: device, other processes, signals, console, files. It knows no model."""
