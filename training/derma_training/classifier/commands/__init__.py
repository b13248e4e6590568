"""The verbs of `python -m derma_training.classifier`, one a module, each with `main(arguments)`."""
