"""Pictures a person looks at: columns of one thing each, rows of frames; below a column of colours, what they mean."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from infra.files import replacing
from model.metrics.nnf import NearestNeighbourField
from model.pyramid import to_frames

# Px at least; smaller frames and pages are enlarged by a whole factor, so that what was computed is seen.
TILE_HEIGHT, PAGE_WIDTH = 96, 1200
HEADER = 14  # px of the line of labels
SHOWN_SAMPLES = 4
SHEET_WIDTH = 1600  # of an image's samples, px
GAP = 4  # px
KEY = 56  # px of a key's picture
WHITE = (255, 255, 255)
FULL_DISTANCE = 0.5  # root mean square, of [-1, 1]: white in every picture, so that pictures can be compared
FULL_SPREAD = 25.0  # of lightness, which has 100


@dataclass(frozen=True)
class Column:
    """frames: uint8 (rows, H, W, 3). key: a picture of the colours, and lines of text beside it."""

    label: str
    frames: np.ndarray
    key: tuple[np.ndarray, str] | None = None


def png_bytes(picture: np.ndarray) -> bytes:
    """uint8 (H, W, 3) as the content of a PNG file."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG")
    return content.getvalue()


def write_png(picture: np.ndarray, path: Path) -> None:
    """uint8 (H, W, 3) as a PNG file, which appears whole. Raises StorageError."""
    with replacing(path) as file:
        file.write(png_bytes(picture))


def contact_sheet(images: Mapping[str, np.ndarray]) -> np.ndarray:
    """Images of one size, uint8 (H, W, 3), each under its name, in rows. Returns uint8 (H', W', 3)."""
    height, width, _ = next(iter(images.values())).shape
    least = max(1, -(-TILE_HEIGHT // height))
    across = max(1, min(len(images), SHEET_WIDTH // (width * least + GAP)))
    zoom = max(least, -(-PAGE_WIDTH // (across * (width + GAP))))
    step = (height * zoom + HEADER + GAP, width * zoom + GAP)
    page = Image.new("RGB", (across * step[1], -(-len(images) // across) * step[0]))
    draw = ImageDraw.Draw(page)
    for place, (name, picture) in enumerate(images.items()):
        row, column = divmod(place, across)
        left, top = column * step[1], row * step[0]
        draw.text((left + 2, top + 1), name, fill=WHITE)
        page.paste(Image.fromarray(picture.repeat(zoom, axis=0).repeat(zoom, axis=1)), (left, top + HEADER))
    return np.asarray(page)


def stacked(sheets: Mapping[str, np.ndarray], note: str = "") -> np.ndarray:
    """Sheets below each other, uint8 (H, W, 3), each under its name, as wide as PAGE_WIDTH. note: a line below them.

    Returns uint8 (H', W', 3).
    """
    scaled = {}
    for name, picture in sheets.items():
        height = max(1, round(picture.shape[0] * PAGE_WIDTH / picture.shape[1]))
        scaled[name] = Image.fromarray(picture).resize((PAGE_WIDTH, height), Image.Resampling.LANCZOS)
    below = HEADER if note else 0
    page = Image.new("RGB", (PAGE_WIDTH, sum(HEADER + each.height + GAP for each in scaled.values()) + below))
    draw, top = ImageDraw.Draw(page), 0
    for name, each in scaled.items():
        draw.text((2, top + 1), name, fill=WHITE)
        page.paste(each, (0, top + HEADER))
        top += HEADER + each.height + GAP
    draw.text((2, top + 1), note, fill=WHITE)
    return np.asarray(page)


def sheet(real: np.ndarray, reconstruction: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """One picture of a scale: columns real, reconstruction, samples; rows first, middle and last frame.

    Args: real, reconstruction: float (3, T, H, W) in [-1, 1]; samples: (N, 3, T, H, W), the first four are shown.
    Returns uint8 (H', W', 3).
    """
    videos = [real, reconstruction, *samples[:SHOWN_SAMPLES]]
    labels = ["real", "reconstruction", *(f"sample {i}" for i in range(len(videos) - 2))]
    rows = _rows(real.shape[1])
    return _page([Column(label, to_frames(video)[rows]) for label, video in zip(labels, videos, strict=True)])


def side_by_side(videos: Mapping[str, np.ndarray]) -> np.ndarray:
    """Videos, uint8 (T, H, W, 3), a column each: first, middle and last frame; images in rows.

    They are of one height and width; those of more frames show them at the same parts of their length.
    """
    if all(len(video) == 1 for video in videos.values()):
        return contact_sheet({label: video[0] for label, video in videos.items()})
    rows = max(len(_rows(len(video))) for video in videos.values())
    parts = np.linspace(0, 1, rows)
    return _page(
        [Column(label, video[np.rint(parts * (len(video) - 1)).astype(int)]) for label, video in videos.items()]
    )


def field_sheet(sample: np.ndarray, real: np.ndarray, field: NearestNeighbourField) -> np.ndarray:
    """Where a sample's patches come from: of the first, middle and last frame that are the middle of a patch, the
    sample; the same made of the middle pixels of the nearest patches; how far away in the frame and in time these are
    in the clip; and how different they are.

    Args: sample, real: float (3, T, H, W) in [-1, 1]; field: of step 1.
    Returns uint8 (H', W', 3). White is no displacement.
    """
    rows = _rows(field.distance.shape[0])
    dt, dy, dx = field.displacement
    around = np.array(
        [sample.shape[1] > 1, 1, 1], int
    )  # of a patch, on each side of its middle; an image has one frame
    at = np.indices(field.distance.shape) + around[:, None, None, None]  # the middle pixel of each patch
    inner = sample[:, around[0] : sample.shape[1] - around[0], 1:-1, 1:-1]
    nearest = real[:, at[0] + dt, at[1] + dy, at[2] + dx]
    _, frames, height, _ = real.shape
    wheel_dy, wheel_dx = np.mgrid[-1 : 1 : KEY * 1j, -1 : 1 : KEY * 1j]
    outside = np.hypot(wheel_dy, wheel_dx) > 1
    wheel = np.where(outside[..., None], 0, _direction(wheel_dy, wheel_dx, 1)).astype(np.uint8)
    when = [] if frames == 1 else [_when_column(dt[rows], frames)]
    columns = [
        Column("sample", to_frames(inner)[rows], _rows_key([row + around[0] for row in rows], sample)),
        Column("of nearest patches", to_frames(nearest)[rows]),
        Column(
            "from where (dy, dx)",
            _direction(dy, dx, height)[rows],
            (wheel, f"white: same place;\nright on the wheel:\nfrom further right;\nrim: {height} px or more"),
        ),
        *when,
        _heat_column("how different", field.distance[rows], FULL_DISTANCE, "RMS; black to\nwhite is 2"),
    ]
    return _page(columns)


def _when_column(dt: np.ndarray, frames: int) -> Column:
    ramp = np.linspace(-1, 1, KEY)[:, None].repeat(KEY // 4, axis=1)
    text = f"{frames - 1} frames earlier\n\nwhite: same frame\n\n{frames - 1} frames later"
    return Column("from when (dt)", _sign(dt, frames - 1), (_sign(ramp, 1), text))


def spread_sheet(samples: Sequence[np.ndarray], real: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Where samples differ: the clip, some samples, and the map; first, middle and last frame.

    Args: real, samples: float (3, T, H, W) in [-1, 1]; spread: (T, H, W), `diversity_map` of all samples.
    Returns uint8 (H', W', 3). Black is no difference.
    """
    rows = _rows(len(spread))
    columns = [Column("real", to_frames(real)[rows], _rows_key(rows, real))]
    columns += [Column(f"sample {i}", to_frames(sample)[rows]) for i, sample in enumerate(samples)]
    text = "standard deviation\nof lightness (0 to\n100), all samples"
    return _page([*columns, _heat_column("how much samples differ", spread[rows], FULL_SPREAD, text)])


# -- colours; each uint8 (…, 3)


def _direction(dy: np.ndarray, dx: np.ndarray, full: float) -> np.ndarray:
    """Hue is the direction, saturation grows with the root of the length: one pixel is seen, `full` is all colour."""
    hue = (np.arctan2(dy, dx) / (2 * np.pi))[..., None] % 1
    pure = np.clip(np.abs((hue * 6 + (0, 4, 2)) % 6 - 3) - 1, 0, 1)
    saturation = np.sqrt(np.clip(np.hypot(dy, dx) / full, 0, 1))[..., None]
    return _bytes(1 - saturation * (1 - pure))


def _sign(values: np.ndarray, full: float) -> np.ndarray:
    """Blue below 0, white at 0, red above."""
    part = np.clip(values / full, -1, 1)
    faded = 1 - np.sqrt(np.abs(part))
    return _bytes(np.stack([np.where(part < 0, faded, 1), faded, np.where(part > 0, faded, 1)], axis=-1))


def _heat(values: np.ndarray, full: float) -> np.ndarray:
    """Black at 0, red, yellow, white at `full`."""
    return _bytes(np.clip(3 * (values / full)[..., None] - (0, 1, 2), 0, 1))


def _bytes(rgb: np.ndarray) -> np.ndarray:
    return np.rint(rgb * 255).astype(np.uint8)


def _heat_column(label: str, values: np.ndarray, full: float, text: str) -> Column:
    ramp = np.linspace(full, 0, KEY)[:, None].repeat(KEY // 4, axis=1)
    return Column(label, _heat(values, full), (_heat(ramp, full), f"{full:g} or more\n{text}\n0"))


# -- the page


def _rows(frames: int) -> list[int]:
    """Which are shown: of an image, which has one, that."""
    return sorted({0, frames // 2, frames - 1})


def _rows_key(rows: Sequence[int], video: np.ndarray) -> tuple[np.ndarray, str] | None:
    if video.shape[1] == 1:
        return None
    numbers = ", ".join(str(row + 1) for row in rows)
    return np.zeros((KEY, 1, 3), np.uint8), f"rows: frames {numbers}\nof {video.shape[1]}"


def _page(columns: Sequence[Column]) -> np.ndarray:
    _, height, width, _ = columns[0].frames.shape
    zoom = max(1, -(-TILE_HEIGHT // height), -(-PAGE_WIDTH // (len(columns) * (width + 2))))
    tall = [np.concatenate([np.pad(f, ((1, 1), (1, 1), (0, 0))) for f in column.frames]) for column in columns]
    picture = np.concatenate(tall, axis=1).repeat(zoom, axis=0).repeat(zoom, axis=1)
    keys = KEY + 12 if any(column.key for column in columns) else 0
    page = Image.new("RGB", (picture.shape[1], HEADER + picture.shape[0] + keys))
    page.paste(Image.fromarray(picture), (0, HEADER))
    draw = ImageDraw.Draw(page)
    for number, column in enumerate(columns):
        left = number * (width + 2) * zoom + 3
        draw.text((left, 1), column.label, fill=WHITE)
        if column.key:
            key, text = column.key
            top = HEADER + picture.shape[0] + 4
            page.paste(Image.fromarray(key), (left, top))
            draw.multiline_text((left + key.shape[1] + 6, top), text, fill=WHITE, spacing=1)
    return np.asarray(page)
