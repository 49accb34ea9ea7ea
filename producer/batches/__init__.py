"""Batches: files of requests that are fed into the queue line by line, whatever dies meanwhile."""
