"""The forwarder service: what waits in the outbox goes to Redis Streams, second opinions come back."""
