"""The lesion classifier: data, architectures, training, export, evaluation."""
