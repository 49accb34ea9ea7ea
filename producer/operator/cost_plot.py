"""The bill as a picture: dollars a month by number of agents, one GPU each against this pool. Needs ``[plots]``."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path

from lorapool.producer.operator.cost import Bill
from lorapool.shared.errors import LorapoolError

HOURS_A_MONTH = 730
MOST_AGENTS = 120


def gpus_for(agents: Sequence[int], gpus_per_agent: float) -> list[int]:
    """GPUs that so many agents like this pool's keep busy."""
    return [max(1, ceil(count * gpus_per_agent - 1e-9)) for count in agents]


def plot(bill: Bill, path: Path) -> None:
    """Write the picture; the suffix says which kind. Raises LorapoolError where it cannot."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        raise LorapoolError("a plot needs matplotlib: pip install 'lorapool[plots]'") from None
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    month = HOURS_A_MONTH * bill.tariff.gpu_usd_per_hour
    agents = list(range(1, MOST_AGENTS + 1))
    figure, axis = plt.subplots(figsize=(8, 4.6), layout="constrained")
    axis.plot(agents, [month * count for count in agents], color="#2c3e50", label="a GPU for each agent")
    shared = [month * count for count in gpus_for(agents, bill.gpus_per_agent)]
    axis.step(agents, shared, where="post", color="#c0392b", label="this pool, at its measured load an agent")
    now = len(bill.agents)
    axis.axvline(now, color="#95a5a6", linestyle=":", label=f"agents now: {now}")
    axis.set(xlabel="agents", ylabel="dollars a month, held all the time", yscale="log", xlim=(1, MOST_AGENTS))
    axis.set_title(
        f"{bill.tariff.gpu_usd_per_hour:.2f} $/GPU-hour, a GPU full at {bill.tariff.full_at:.0%} busy", fontsize=10
    )
    axis.legend(frameon=False, fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise LorapoolError(f"cannot write the plot {path}: {error}") from None
    finally:
        plt.close(figure)
