"""From detections and annotations to numbers. It draws nothing and writes nothing."""
