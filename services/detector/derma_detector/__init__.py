"""The detector service: letterbox, YOLOv4, decode, NMS, and the squares to be classified."""
