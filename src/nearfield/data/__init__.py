"""Data for training: arrays, in batches, in an order that a seed decides."""

from .dataset import Dataset, as_dataset, order

__all__ = ["Dataset", "as_dataset", "order"]
