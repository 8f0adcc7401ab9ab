"""How near an enlarged clip is to the truth, beside a bicubic interpolation: a row of model/sampling/README.md.

    python -m tests.model.enlarge_figures CLIP TRUTH --factor 2

CLIP is the folder of a trained clip, TRUTH the video or image that it was trained on, of which the model has seen a
smaller one. The truth is brought to `factor` times the model's size, and shrunk by that to what is enlarged.
"""

from __future__ import annotations

import argparse
import sys

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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip")
    parser.add_argument("truth")
    parser.add_argument("--factor", type=float, default=2.0)
    args = parser.parse_args()
    source = image.read(args.truth) if image.is_image(args.truth) else video.decode(args.truth, num_frames=13, fps=24)
    model = load(args.clip, source)
    _, height, width = model.applications.size
    truth = shrunk(source, round(height * args.factor), round(width * args.factor))
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
