"""What strangers and operators write into files: a third of the minute."""

from __future__ import annotations

from tests.fuzz.minute import unharmed


def test_adapters() -> None:
    """Configs, headers, weights and templates are refused by name, or served as numbers that are some."""
    unharmed(10, "config", "folder", "weights", "prompt_format", "template")


def test_files_and_settings() -> None:
    """Files of requests, manifests, schedules and settings are refused by name, within their time."""
    unharmed(8, "batch_file", "results_file", "manifest", "schedule", "moment", "settings", "worker_config", "sizes")
