"""What is done to the network's label maps before they are written: small regions merged."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..common.label_map import Segmentation
from ..common.regions import sieve


@dataclass(frozen=True)
class LabelRules:
    """What is done to each label map that the network predicts; by default nothing.

    Parameters
    ----------
    min_region
        Regions of fewer connected pixels take the class of their largest neighbour (see `regions.sieve`).
    """

    min_region: int = 0

    def __call__(self, predicted: Segmentation) -> Segmentation:
        """Return the segmentation with other labels; the confidence stays that of the network's class."""
        labels = sieve(predicted.labels, self.min_region)
        return predicted if labels is predicted.labels else replace(predicted, labels=labels)


AS_PREDICTED = LabelRules()
