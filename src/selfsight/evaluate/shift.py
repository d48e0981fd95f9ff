"""The read-out with which a drawn set asks where an encoder stops seeing: one linear probe for every condition.

It is fitted on the split `train` alone. `FeatureSet.test` then holds the pictures of `test` and of every split that shifts a
factor, one after the other, so that all of them meet the same weights and the same strength.
"""

from __future__ import annotations

from selfsight.evaluate.linear import Linear


class Shift(Linear):
    """The linear probe: a weakness of k-NN in another range would be that of its neighbours, not of the features alone."""

    read_out = "linear probe"
