"""What travels between agents and workers, and where it lives. No torch; imports neither side.

``__version__`` is the release that is installed, as its metadata says: pyproject.toml is the only place that states it.
"""

from importlib.metadata import version

__version__ = version("lorapool")
