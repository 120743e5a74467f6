"""Batches of twelve small images, and whether two streams of batches are the same."""

import torch

from sarlib.data.loader import TrainBatches

SIZE = 16


def batches(images, augmentation, **settings):
    settings = {"batch_size": 12, "image_size": SIZE, "seed": 3, "device": "cpu"} | settings
    return TrainBatches(images, augmentation=augmentation, **settings)


def equal(one, two):
    one, two = list(one), list(two)
    return len(one) == len(two) and all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, two))
