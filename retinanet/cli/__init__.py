"""Flags that the scripts share, the data that they name, and the end of a script."""
