"""Pictures as data URIs: an input, and what spoke for and against the answer laid over it."""

from __future__ import annotations

import base64
import io

import numpy as np

FOR = np.array([213, 94, 0], dtype=np.float64)  # vermillion: raises the output (Okabe & Ito 2008)
AGAINST = np.array([0, 114, 178], dtype=np.float64)  # blue: lowers it


def png(pixels: np.ndarray) -> str:
    """uint8 (h, w, 1 or 3) or (h, w) -> ``data:image/png;base64,...``, the same bytes every time."""
    from PIL import Image

    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8)).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def montage(pictures: np.ndarray, gap: int = 2) -> np.ndarray:
    """A grid of pictures: uint8 (rows, columns, h, w, 1 or 3) -> uint8 (H, W, 1 or 3), grey between."""
    rows, columns, height, width, channels = pictures.shape
    size = (rows * (height + gap) - gap, columns * (width + gap) - gap, channels)
    out = np.full(size, 128, dtype=np.uint8)
    for r in range(rows):
        for c in range(columns):
            top, left = r * (height + gap), c * (width + gap)
            out[top : top + height, left : left + width] = pictures[r, c]
    return out


def overlay(image: np.ndarray, attribution: np.ndarray) -> np.ndarray:
    """Attributions over a pale grey version of the image.

    Args:
        image: uint8 (h, w, c).
        attribution: float (h, w), positive where a pixel raises the output.
    Returns:
        uint8 (h, w, 3). Full colour at the 99.5th percentile of the magnitudes, so that one
        outlying pixel does not bleach the others.
    """
    grey = image.astype(np.float64).mean(axis=2, keepdims=True)
    if np.median(grey) < 128:  # a drawing on black: the colours need a light ground
        grey = 255 - grey
    paper = 255 - (255 - np.repeat(grey, 3, axis=2)) * 0.3
    top = np.quantile(np.abs(attribution), 0.995) or np.abs(attribution).max() or 1.0
    strength = np.clip(np.abs(attribution) / top, 0, 1)[:, :, None]
    colour = np.where(attribution[:, :, None] >= 0, FOR, AGAINST)
    return np.rint(paper * (1 - strength) + colour * strength).astype(np.uint8)


def heat(grid: np.ndarray) -> np.ndarray:
    """float (rows, columns) >= 0 -> uint8 (rows, columns, 4): vermillion, from none to full.

    The least is transparent: what is under it is the page, light or dark.
    """
    strength = (grid / (grid.max() or 1.0))[:, :, None]
    full = np.broadcast_to(FOR, (*grid.shape, 3))
    return np.rint(np.concatenate([full, 255 * strength], axis=2)).astype(np.uint8)
