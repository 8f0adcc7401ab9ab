"""Names on command lines and in results: of features; of figures that tell how many samples they are of."""

from __future__ import annotations

import re

FEATURES = "lite0, c3d:FILE, inception:FILE or inception192:FILE"


def is_features(option: str) -> bool:
    """Whether `--features` may be this, by its form: its FILE is not looked at."""
    return bool(re.fullmatch("lite0|(c3d|inception|inception192):.+", option, re.DOTALL))


def diversity_name(samples: int) -> str:
    """What a diversity of so many samples is called, wherever it is kept: diversity_n50 is the paper's. It rises with
    their number."""
    return f"diversity_n{samples}"


def diversity_samples(name: str) -> int:
    """Inverse: 50 of diversity_n50; 0 of any other name."""
    found = re.fullmatch(r"diversity_n(\d+)", name)
    return int(found[1]) if found else 0
