"""How fast a gallery opens and scrolls in this machine's Chromium.

python -m tests.jobs.gallery_speed             # 25 clips of 10 samples
python -m tests.jobs.gallery_speed 500 10      # others
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from selenium import webdriver

from jobs.experiment.experiment import Experiment
from jobs.experiment.gallery import write_gallery
from tests.browser import browser
from tests.jobs.made_experiment import write_corpus

SCROLLED_S, PX_A_SECOND = 6, 1200
EMPTY = "data:text/html,<body style='height:30000px'>"

FIRST_PICTURE = """
window.firstPicture = null;
const seen = ({target}) => { window.firstPicture ??= target.matches?.("video,img") ? performance.now() : null; };
for (const event of ["loadeddata", "load"]) addEventListener(event, seen, true);
"""
SCROLL = """
const [seconds, speed, done] = arguments, deltas = [], began = performance.now();
let last = began;
requestAnimationFrame(function frame(now) {
  if (now > last) deltas.push(now - last);
  last = now;
  scrollTo(0, (now - began) / 1000 * speed);
  if (now - began < 1000 * seconds) requestAnimationFrame(frame); else done(deltas);
});
"""


def opened(chrome: webdriver.Chrome, page: Path) -> tuple[float, float]:
    """Open the page. Returns seconds until it is read, and until the first video or picture can be seen."""
    chrome.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": FIRST_PICTURE})
    chrome.get(page.as_uri())
    while (first := chrome.execute_script("return window.firstPicture")) is None:
        time.sleep(0.02)
    read = chrome.execute_script("return performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    return read / 1000, first / 1000


def scrolled(chrome: webdriver.Chrome) -> list[float]:
    """Scroll down. Returns the milliseconds from each picture of the screen to the next."""
    chrome.set_script_timeout(60)
    return list(chrome.execute_async_script(SCROLL, SCROLLED_S, PX_A_SECOND))


def main(clips: int = 25, samples: int = 10) -> None:
    """Print the figures of one gallery."""
    with tempfile.TemporaryDirectory() as scratch, browser() as chrome:
        folder = write_corpus(Path(scratch) / "corpus", clips, samples, Path(scratch))
        began = time.monotonic()
        gallery = write_gallery([Experiment.open(scratch, "corpus")])
        size, took = gallery.bytes / 1e6, time.monotonic() - began
        print(f"{clips} clips × {samples} samples: {size:.1f} MB, written in {took:.1f} s")
        read, first = opened(chrome, folder / "gallery.html")
        print(f"read {read:.2f} s, first picture {first:.2f} s")
        print(f"scrolling at {PX_A_SECOND} px/s: {frames(scrolled(chrome))}")
        chrome.get(EMPTY)
        print(f"an empty page, to compare: {frames(scrolled(chrome))}")


def frames(deltas: list[float]) -> str:
    """What the milliseconds between pictures of the screen say."""
    late = sum(delta > 25 for delta in deltas) / len(deltas)
    middle = f"median {statistics.median(deltas):.1f} ms, longest {max(deltas):.0f} ms"
    return f"{1000 / statistics.fmean(deltas):.0f} frames/s, {middle}, {late:.0%} over 25 ms"


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
