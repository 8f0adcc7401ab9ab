"""The setting `compile`: whether an iteration stays the same, and what it gains."""

from __future__ import annotations

import time

from jobs.gpu.parity import LIMITS, errors, iteration
from jobs.gpu.part import Found, Setting, table
from model.timing import measure


def compiled(setting: Setting) -> Found:
    """An iteration with the generators compiled against one without, on the same device: both draw the same numbers."""
    plain = setting.config
    with_it = plain.with_overrides(["compile=true"])
    rows, figures, passed = [], [], True
    loss_limit, gradient_limit = LIMITS["float32"]
    for n in (0, plain.vae_levels):
        expected = iteration(plain, setting.sizes, n, "float32")
        loss, gradient = errors(iteration(with_it, setting.sizes, n, "float32"), expected)
        passed = passed and loss <= loss_limit and gradient <= gradient_limit
        started = time.perf_counter()
        after = measure(with_it, setting.sizes, n, setting.seconds).sec_per_iter
        whole = time.perf_counter() - started
        before = measure(plain, setting.sizes, n, setting.seconds).sec_per_iter
        rows.append([n, f"{loss:.1e}", f"{gradient:.1e}", f"{before:.4f}", f"{after:.4f}", f"{before / after:.2f}"])
        figures.append({"scale": n, "loss_error": loss, "gradient_error": gradient, "plain_sec_per_iter": before})
        figures[-1] |= {"sec_per_iter": after, "with_compilation_s": whole}
    header = ["scale", "loss error", "gradient error", "plain s/iter", "compiled", "times as fast"]
    note = f"Limits of the errors, in float32: {loss_limit:g} and {gradient_limit:g}."
    return Found(passed, [*table(header, rows), "", note], {"rows": figures})
