"""What several tests need: fake models, runs of the real command."""
