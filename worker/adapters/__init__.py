"""An adapter's way from a uri to checked tensors, and to its verdict: ready, or refused with the reason.

What strangers wrote is hostile until it was judged, in a process of its own.
"""
