"""The verbs of `python -m derma_training.detector`, one a module, each with `main(arguments)`."""
