"""Networks behind one contract: a card that describes the file, a runner that runs it, a decoder that reads it."""
