"""Training pictures: geometry, pixels, and a pipeline of both for each recipe."""
