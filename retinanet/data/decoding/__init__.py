"""Files of every image format as 8-bit RGB pixels. It knows nothing of data sets."""
