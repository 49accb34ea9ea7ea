"""What AOS claims that sharing a GPU saves, beside what can be saved."""

from __future__ import annotations

from benchmarks.claims import rows


def test_claims_are_held_against_arithmetic() -> None:
    """90 % of three agents is more than one GPU can save; 80 % and 75 % of five contradict each other."""
    claimed = {row.agents: row for row in rows(gpus_per_agent=0.04)}
    assert "contradicts itself: 67% and 90%" in claimed[3].verdict
    assert "90% is more than one GPU for all can save (67%)" in claimed[3].verdict
    assert "contradicts itself: 75% and 80%" == claimed[5].verdict
    assert "" == claimed[10].verdict == claimed[50].verdict  # 50 agents fill the two GPUs that the claim names
    assert (4, 0.96) == (claimed[100].gpus, claimed[100].saved)
    assert "they keep 4 busy" in claimed[100].verdict
    assert [3, 4, 5, 10, 50, 100] == list(claimed)
