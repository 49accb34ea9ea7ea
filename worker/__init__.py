"""What owns a device: the engine, its adapters, and the loops that tie them to the queue."""
