"""AP after the same images seen, beside the original's settings and torchvision's RetinaNet."""
