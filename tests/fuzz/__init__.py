"""The fuzzer of everything foreign: ``python -m tests.fuzz --seconds 60``, ``make fuzz``.

A target (target.py) draws cases from a random number generator and lets the product read them: nothing may come but a
typed error, within a time. The case of a seed is always the same, so that a finding is one line to repeat. Targets in
process do thousands of cases a second, a noun a module; live.py writes junk into every key of a real pool while sound
jobs run. campaign.py shares the time out and keeps the table.
"""
