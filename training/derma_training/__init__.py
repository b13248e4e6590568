"""Training, calibration, export and measurement of the models: the only package that imports torch."""
