"""Label maps from a COCO ``instances_*.json``, by the rules of torchvision's segmentation reference.

The 20 categories that Pascal VOC has become its class indices, everything else is background. A crowd
counts as an instance like any other. Pixels of more than one instance are void, also when the instances are
of one class. Every image of the file counts, those without an annotation too: they are all background.

Instances become pixels by COCO's own code, pycocotools.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import FailureKind, ImageError, RequestError
from .labelmaps import LabelMap
from .palettes import VOID_INDEX

VOC_CATEGORIES = (5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)
"""COCO's category ids of Pascal VOC's classes 1 to 20, in their order."""


class CocoTruth:
    """Ground truth in COCO's format.

    Parameters
    ----------
    path
        The JSON file.

    Raises
    ------
    RequestError
        It cannot be read or understood, or pycocotools is missing.
    """

    def __init__(self, path: Path) -> None:
        try:
            from pycocotools import mask
        except ImportError:
            raise RequestError(
                f"{path}: COCO annotations take pycocotools; install it with: pip install 'fcn-cli[coco]'"
            ) from None
        self._coco = mask
        self.path = path
        self.description = (
            "COCO instances: the 20 Pascal VOC categories, crowds as instances, overlaps void, "
            "images without annotations as background"
        )
        try:
            content = json.loads(path.read_bytes())
            self._images = {image["file_name"]: image for image in content["images"]}
            self._instances: dict[int, list[dict[str, Any]]] = defaultdict(list)
            for instance in content["annotations"]:
                if instance["category_id"] in VOC_CATEGORIES:
                    self._instances[instance["image_id"]].append(instance)
        except OSError as error:
            raise RequestError(f"{path}: cannot be read ({error.strerror})") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RequestError(f"{path}: not a file of COCO instances ({error!r})") from None

    def __len__(self) -> int:
        return len(self._images)

    def find(self, image: str) -> str | None:
        """Return the file name under which the annotations know an image, or None."""
        return image if image in self._images else None

    def load(self, name: str) -> LabelMap:
        """Return the label map of an image that was found.

        Raises
        ------
        ImageError
            Its annotations are damaged.
        """
        try:
            image = self._images[name]
            shape = int(image["height"]), int(image["width"])
            labels = np.zeros(shape, np.uint8)
            covered = np.zeros(shape, np.uint8)
            for instance in self._instances[image["id"]]:
                here = self._pixels(instance["segmentation"], *shape)
                labels[here] = VOC_CATEGORIES.index(instance["category_id"]) + 1
                # Two are as good as more.
                covered[here] = np.minimum(covered[here] + 1, 2)
        except Exception as error:  # noqa: BLE001 - pycocotools raises anything on damaged segmentations
            raise ImageError(
                FailureKind.BAD_LABELS, f"{self.path}: annotations of {name} are damaged ({error})"
            ) from None
        labels[covered > 1] = VOID_INDEX
        return labels

    def _pixels(self, segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
        """Return where an instance is: polygons (their union), or run lengths, compressed or not."""
        if isinstance(segmentation, list):
            runs = self._coco.merge(self._coco.frPyObjects(segmentation, height, width))
        elif isinstance(segmentation["counts"], list):
            runs = self._coco.frPyObjects(segmentation, height, width)
        else:
            runs = segmentation
        here: NDArray[np.bool_] = self._coco.decode(runs).astype(bool)
        if here.shape != (height, width):
            raise ValueError(f"a mask of {here.shape[1]}x{here.shape[0]} in an image of {width}x{height}")
        return here
