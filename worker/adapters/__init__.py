"""An adapter's way from a uri to checked tensors, and what is found out about it on the way.

What strangers wrote is hostile until it was judged, in a process of its own.
"""
