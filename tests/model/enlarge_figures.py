"""How near an enlarged clip is to the truth, beside a bicubic interpolation: a row of model/sampling/README.md.

    python -m tests.model.enlarge_figures CLIP TRUTH --factor 2

CLIP is the folder of a trained clip, TRUTH the video or image that it was trained on, of which the model has seen a
smaller one. The truth is shrunk to `factor` times the model's size, and by that to what is enlarged. A truth that is
smaller would be interpolated itself, and is refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from skimage.transform import resize

from model import load
from model.metrics.naturalness import naturalness_distance
from pipeline import image, video


def shrunk(frames_thwc: np.ndarray, height: int, width: int) -> np.ndarray:
    size = (len(frames_thwc), height, width, 3)
    return resize(frames_thwc, size, order=1, anti_aliasing=True, preserve_range=True).round().astype(np.uint8)


def sharpness(frames_thwc: np.ndarray) -> float:
    return float(np.abs(np.diff(frames_thwc.astype(float), axis=2)).mean())


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip")
    parser.add_argument("truth")
    parser.add_argument("--factor", type=float, default=2.0)
    args = parser.parse_args(argv)
    source = image.read(args.truth) if image.is_image(args.truth) else video.decode(args.truth, num_frames=13, fps=24)
    model = load(args.clip, source)
    _, height, width = model.applications.size
    large = (round(height * args.factor), round(width * args.factor))
    if source.shape[1] < large[0] or source.shape[2] < large[1]:
        cause = f"has {source.shape[1]}×{source.shape[2]} px, and {large[0]}×{large[1]} px are needed"
        print(f"{args.truth}: {cause}; give a larger truth, or train with a smaller max_size", file=sys.stderr)
        return 2
    truth = shrunk(source, *large)
    low = shrunk(truth, height, width)
    cubic = resize(low, truth.shape, order=3, preserve_range=True).round().clip(0, 255).astype(np.uint8)
    ours = model.applications.enlarge(args.factor, given=low)
    print("| | PSNR, dB | SSIM | distance of local statistics to the truth | mean gradient over the truth's |")
    print("|---|---|---|---|---|")
    for name, made in (("bicubic", cubic), ("ours", ours)):
        psnr = peak_signal_noise_ratio(truth, made)
        ssim = np.mean([structural_similarity(a, b, channel_axis=2) for a, b in zip(truth, made)])
        natural, sharp = naturalness_distance(made, truth), sharpness(made) / sharpness(truth)
        print(f"| {name} | {psnr:.2f} | {ssim:.3f} | {natural:.2f} | {sharp:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
