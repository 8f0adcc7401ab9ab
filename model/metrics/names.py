"""Names of figures that tell how many samples they are of. Diversity rises with that number."""

from __future__ import annotations

import re


def diversity_name(samples: int) -> str:
    """What a diversity of so many samples is called, wherever it is kept: diversity_n50 is the paper's."""
    return f"diversity_n{samples}"


def diversity_samples(name: str) -> int:
    """Inverse: 50 of diversity_n50; 0 of any other name."""
    found = re.fullmatch(r"diversity_n(\d+)", name)
    return int(found[1]) if found else 0
