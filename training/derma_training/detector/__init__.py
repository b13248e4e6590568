"""The lesion detector: YOLOv4 networks, data, training, export, evaluation."""
