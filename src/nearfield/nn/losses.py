"""Losses under one name: `nn.losses.cross_entropy` and the others."""

from ..functional.loss import *  # noqa: F403
