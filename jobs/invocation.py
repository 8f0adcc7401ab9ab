"""How a job is started, and what the lines that jobs print say to type.

In this source tree: python jobs/train_corpus.py. Of an installed package: hp-vae-gan train (jobs/hp_vae_gan.py).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PROGRAM = "hp-vae-gan"  # the script that setup.cfg has pip make
# What hp-vae-gan calls each job, by the job's file in jobs/.
COMMANDS = {
    "benchmark": "benchmark",
    "compare_corpus": "compare",
    "evaluate": "evaluate",
    "export": "export",
    "gallery": "gallery",
    "gpu_check": "gpu-check",
    "sample": "sample",
    "make_shards": "shards",
    "simulate_scale": "simulate-scale",
    "study": "study",
    "train_corpus": "train",
    "tune": "tune",
    "ui": "ui",
    "upload": "upload",
    "watch": "watch",
}
OF_SOURCE = re.compile(r"python jobs/(\w+)\.py")


def by_program() -> bool:
    """Whether this process is hp-vae-gan, and not one file of jobs/."""
    return Path(sys.argv[0]).stem in (PROGRAM, "hp_vae_gan")


def start_of(job: str) -> list[str]:
    """The first words of a command line for a job, as this process was started itself. job: sample, train_corpus, …"""
    return [PROGRAM, COMMANDS.get(job, job)] if by_program() else ["python", f"jobs/{job}.py"]


def own_words() -> list[str]:
    """The command line of this process, to type again."""
    return [PROGRAM, *sys.argv[1:]] if by_program() else ["python", *sys.argv]


def as_here(text: str) -> str:
    """A text with commands of the source tree, with those of hp-vae-gan if this process is it."""
    return OF_SOURCE.sub(lambda found: " ".join(start_of(found[1])), text)
