"""OpenVLA-OFT's pictures, number for number: what its TensorFlow pipeline makes of a camera's picture.

A JPEG round trip, a Lanczos resize to the model's side, then the centre crop of 0.9 of the area that stands for the
random crops of training. The checkpoints were trained on exactly these pixels, and each step has its trap: TensorFlow
decodes JPEG with the fast integer transform, resizes in floats before it rounds, crops by bilinear samples that touch
the corners, and cuts to bytes by floor(255.5 x). Resizing and cropping are linear in each axis, so each is two small
matrices made once, sparse because few pixels make a new one: 7 ms a picture of 256 px on one core, and no BLAS threads.
"""

import functools
import io
import math

import numpy as np
import simplejpeg
from PIL import Image
from scipy.sparse import csr_matrix

JPEG_QUALITY = 95
LANCZOS_LOBES = 3
CROP_AREA = 0.9
BICUBIC_PX = 256
"""Side to which ALOHA's pictures are brought first, by Pillow."""


def prepare(images: np.ndarray, side_px: int, *, mirror: bool, resize_first: bool) -> np.ndarray:
    """Returns pictures uint8 (N, side, side, 3) for the model of upright pictures uint8 (N, H, W, 3) of a camera.

    mirror: left to right, as LIBERO's checkpoints see them: the stock environment's pictures are upside down and were
    turned by 180 degrees, which leaves them upright and mirrored. resize_first: to 256 x 256 by Pillow's bicubic, as
    ALOHA's are.
    """
    if mirror:
        images = images[:, :, ::-1]
    if resize_first:
        images = np.stack([bicubic(image, BICUBIC_PX) for image in images])
    images = np.stack([jpeg_round_trip(image) for image in images])
    return centre_crop(lanczos(images, side_px))


def bicubic(image: np.ndarray, side_px: int) -> np.ndarray:
    """Returns uint8 (side, side, 3) of uint8 (H, W, 3)."""
    return np.asarray(Image.fromarray(image).resize((side_px, side_px), Image.Resampling.BICUBIC))


def jpeg_round_trip(image: np.ndarray) -> np.ndarray:
    """Returns what TensorFlow reads back of a picture that it wrote as JPEG; uint8 (H, W, 3)."""
    written = io.BytesIO()
    Image.fromarray(image).save(written, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")
    return simplejpeg.decode_jpeg(written.getvalue(), colorspace="RGB", fastdct=True, fastupsample=False)


def lanczos(images: np.ndarray, side_px: int) -> np.ndarray:
    """Returns uint8 (N, side, side, 3) of uint8 (N, H, W, 3), resized with antialiasing and rounded."""
    rows, columns = (lanczos_weights(size, side_px) for size in images.shape[1:3])
    resized = np.stack([_apply(rows, image.astype(np.float32), columns) for image in images])
    return np.rint(resized).clip(0, 255).astype(np.uint8)


def centre_crop(images: np.ndarray) -> np.ndarray:
    """Returns the centre CROP_AREA of uint8 (N, side, side, 3), resized back to the same side."""
    weights = crop_weights(images.shape[1])
    unit = images.astype(np.float32) / np.float32(255)
    cropped = np.stack([_apply(weights, image, weights) for image in unit])
    return np.floor(cropped.clip(0, 1) * np.float32(255.5)).clip(0, 255).astype(np.uint8)


def _apply(rows: csr_matrix, image: np.ndarray, columns: csr_matrix) -> np.ndarray:
    """Returns rows @ image @ columns^T of each channel; image: float32 (H, W, C)."""
    height, width, channels = image.shape
    down = (rows @ image.reshape(height, width * channels)).reshape(-1, width, channels)
    sideways = np.ascontiguousarray(down.transpose(1, 0, 2)).reshape(width, -1)
    return (columns @ sideways).reshape(columns.shape[0], -1, channels).transpose(1, 0, 2)


@functools.lru_cache(maxsize=16)
def lanczos_weights(source: int, target: int) -> csr_matrix:
    """Returns float32 (target, source): the weights of each target pixel, which sum to 1."""
    scale = source / target
    stretch = max(scale, 1.0)  # a smaller picture needs a wider filter, or it aliases
    centre = (np.arange(target) + 0.5)[:, None] * scale
    distance = (np.arange(source) + 0.5 - centre) / stretch
    weights = np.where(np.abs(distance) < LANCZOS_LOBES, np.sinc(distance) * np.sinc(distance / LANCZOS_LOBES), 0.0)
    return csr_matrix((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))


@functools.lru_cache(maxsize=16)
def crop_weights(side_px: int) -> csr_matrix:
    """Returns float32 (side, side): bilinear samples from corner to corner of the centred crop."""
    edge = math.sqrt(CROP_AREA)
    start, step = (1 - edge) / 2 * (side_px - 1), edge
    place = (np.float32(start) + np.arange(side_px, dtype=np.float32) * np.float32(step)).astype(np.float64)
    left = np.minimum(np.floor(place).astype(int), side_px - 2)
    weights = np.zeros((side_px, side_px))
    rows = np.arange(side_px)
    weights[rows, left] = 1 - (place - left)
    weights[rows, left + 1] = place - left
    return csr_matrix(weights.astype(np.float32))
