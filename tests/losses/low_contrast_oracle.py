"""LoCo Eq. 7-13 as they read: NumPy, float64, one embedding a pixel, loops over pixels and neighbours."""

from __future__ import annotations

import functools
import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np


class Selection(NamedTuple):
    """Flat pixel numbers over labelled, then unlabelled images; `gap`: how far the closest call was from a tie."""

    inter_class: set[int]
    boundary: set[int]
    boundary_scores: dict[int, float]
    gap: float


@functools.cache
def upsampling_matrix(source, target):
    """Weights of the h * w features for each of the H * W pixels: bilinear, half-pixel centres."""
    (h, w), (height, width) = source, target
    matrix = np.zeros((height * width, h * w))
    for y in range(height):
        for x in range(width):
            v = min(max((y + 0.5) * h / height - 0.5, 0), h - 1)
            u = min(max((x + 0.5) * w / width - 0.5, 0), w - 1)
            for i in {math.floor(v), math.ceil(v)}:
                for j in {math.floor(u), math.ceil(u)}:
                    matrix[y * width + x, i * w + j] += (1 - abs(v - i)) * (1 - abs(u - j))
    return matrix


def embeddings(labeled, unlabeled, target):
    """Embeddings of all pixels of all images: `((B + U) * H * W, D)`."""
    features = np.concatenate([labeled, unlabeled]).astype("float64")
    count, h, w, depth = features.shape
    matrix = upsampling_matrix((h, w), target)
    return np.concatenate([matrix @ image.reshape(h * w, depth) for image in features])


def pixel_labels(masks, pseudo_masks, kept, num_classes):
    """Class of each pixel that counts, else -1."""
    filtered = np.where(kept > 0, pseudo_masks, -1)
    labels = np.concatenate([masks, filtered]).astype("int64").ravel()
    return np.where((labels >= 0) & (labels < num_classes), labels, -1)


def cosine(a, b):
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return (a * b).sum(-1) / np.where(lengths > 0, lengths, 1)


def class_embeddings(z, labels, labeled_pixels, num_classes):
    means = {}
    for c in range(num_classes):
        members = np.flatnonzero(labels[:labeled_pixels] == c)
        if len(members):
            means[c] = z[members].mean(0)
    return means


def take_lowest(candidates, count):
    """The `count` pixels of lowest value, and the gap to the next one; candidates: pixel -> value."""
    order = sorted(candidates, key=candidates.get)
    gap = np.inf
    if 0 < count < len(order):
        gap = candidates[order[count]] - candidates[order[count - 1]]
    return set(order[:count]), gap


def neighbourhood(neighbours):
    reach = range(-neighbours, neighbours + 1) if neighbours < 12 else range(-12, 13)
    offsets = [(dy, dx) for dy in reach for dx in reach if (dy, dx) != (0, 0)]
    offsets.sort(key=lambda o: (o[0] ** 2 + o[1] ** 2, o[0], o[1]))
    return offsets[:neighbours]


def boundary_scores(z, labels, shape, neighbours):
    """Eq. 13 of every boundary pixel."""
    count, height, width = shape
    offsets = neighbourhood(neighbours)
    scores = {}
    for n in range(count):
        for y in range(height):
            for x in range(width):
                here = (n * height + y) * width + x
                near = [(y + dy, x + dx) for dy, dx in offsets]
                near = [(n * height + v) * width + u for v, u in near if 0 <= v < height and 0 <= u < width]
                if labels[here] >= 0 and any(labels[p] not in (-1, labels[here]) for p in near):
                    scores[here] = cosine(z[here], z[near]).min()
    return scores


def select(batch, num_classes, k, neighbours, quota="class", share=None, order="highest", classes="all"):
    """Both selections, each for labelled and unlabelled pixels apart."""
    labeled, masks, unlabeled, pseudo_masks, kept = batch
    count, (height, width) = len(labeled) + len(unlabeled), masks.shape[1:]
    z = embeddings(labeled, unlabeled, (height, width))
    labels = pixel_labels(masks, pseudo_masks, kept, num_classes)
    border = masks.size
    means = class_embeddings(z, labels, border, num_classes)
    scores = boundary_scores(z, labels, (count, height, width), neighbours)
    inter_class, boundary, gaps = set(), set(), []
    k, share = (Fraction(str(k)), Fraction(str(k if share is None else share)))
    sources = range(border), range(border, len(labels))
    for source in sources:
        counted = sum(labels[p] >= 0 for p in source)
        for c, mean in means.items():
            members = [p for p in source if labels[p] == c]
            number = math.floor(k * len(members)) if quota == "class" else math.floor(k * counted / num_classes)
            chosen, gap = take_lowest({p: cosine(z[p], mean) for p in members}, number)
            inter_class |= chosen
            gaps.append(gap)
        sign = -1 if order == "highest" else 1
        edges = {p: sign * s for p, s in scores.items() if p in source and (classes == "all" or labels[p] > 0)}
        chosen, gap = take_lowest(edges, math.floor(share * len(edges)))
        boundary |= chosen
        gaps.append(gap)
    return Selection(inter_class, boundary, scores, min(gaps))


def loss(batch, selected, num_classes, temperature):
    """Eq. 11 over the selected pixels."""
    labeled, masks, unlabeled, pseudo_masks, kept = batch
    z = embeddings(labeled, unlabeled, masks.shape[1:])
    labels = pixel_labels(masks, pseudo_masks, kept, num_classes)
    means = class_embeddings(z, labels, masks.size, num_classes)
    selected = np.array(sorted(selected), "int64")
    per_class = []
    for c, mean in means.items():
        similarity = np.exp(cosine(z[selected], mean) / temperature)
        own = labels[selected] == c
        if own.any():
            per_class.append(np.mean(-np.log(similarity[own] / (similarity[own] + similarity[~own].sum()))))
    return np.mean(per_class) if per_class else 0.0
