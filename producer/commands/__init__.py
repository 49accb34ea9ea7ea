"""The operator's commands, one file a noun; ``lorapool.producer.cli`` puts them together."""
