"""YOLO: sets, their description, their labels."""
