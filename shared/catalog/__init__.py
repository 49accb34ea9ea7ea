"""What a pool serves: adapter versions, aliases, and the config that all its workers agree on."""
