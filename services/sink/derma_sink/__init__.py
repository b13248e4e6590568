"""The sink service: joins a frame's messages, gives it its one outcome, stores it, acknowledges, publishes."""
