"""The classifier service: crops cut from the ring, EfficientNet, calibrated probabilities."""
