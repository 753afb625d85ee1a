"""The layout of the COVID-19 lung boxes with its quirks, on small images."""

import json
from pathlib import Path

from tests.support.pictures import picture, save

FINDINGS = {
    "a.jpg": "COVID-19, ARDS",
    "b.png": "No Finding",
    "c.jpg": "todo",
    "d.jpeg": "Varicella",
    "gone.jpg": "Lipoid",
}
NAMELESS = 850
"""The published annotation without a category."""


def write_covid_lung_boxes(root: Path) -> Path:
    """Five entries, one without a file; one box without a category; two images of a patient of ccxs."""
    images, annotations = [], []
    for number, (name, finding) in enumerate(FINDINGS.items(), start=1):
        if name != "gone.jpg":
            save(picture(number + 200), root / "images" / name)
        metadata = {"patientid": "7" if number < 3 else str(number + 20), "finding": finding, "view": "PA"}
        images.append({"id": number, "file_name": name, "width": 64, "height": 48, "license": 1, "metadata": metadata})
        for side in (1, 2):
            box = {
                "id": number * 10 + side,
                "image_id": number,
                "bbox": [30 * side - 28, 4, 28, 40],
                "segmentation": [],
            }
            annotations.append({**box, "category_id": side})
    nameless = next(box for box in annotations if box["image_id"] == 4 and box["category_id"] == 2)
    del nameless["category_id"]
    nameless["id"] = NAMELESS
    categories = [{"id": 1, "name": "Right Lung"}, {"id": 2, "name": "Left Lung"}]
    path = root / "annotations" / "annotations.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return root
