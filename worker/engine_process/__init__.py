"""An engine in a process of its own, behind the same port, and that process's supervisor.

No Redis; torch only through what the child is asked to build.
"""
