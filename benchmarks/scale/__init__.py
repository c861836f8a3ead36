"""Time and memory that grow with the data: files, boxes, photographs, steps."""
