"""Readers of annotation files, a file a format. They open no image but to learn its size."""
