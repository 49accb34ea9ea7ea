"""The console: the pool as pages in a browser. Needs the extra ``[gateway]``, which serves it."""
