"""How a Redis server is talked to: settings, connection, keys, terms, retries."""
