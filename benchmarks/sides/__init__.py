"""The sides that are compared, and how they are measured; it prints nothing but tables."""
