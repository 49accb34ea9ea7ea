"""One module a question; each prints its figures and writes JSON."""
