"""From annotation files and images to batches. It knows no model."""
