"""What two processes of derma must agree on: words, messages, pixels, models."""

__version__ = "0.1.0"
