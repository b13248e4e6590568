"""Small labelled data sets on disk, in each of the formats."""

from __future__ import annotations

import csv
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

Box = Sequence[float]  # x1 y1 x2 y2, px
Boxes = Mapping[str, Sequence[Box]]  # picture's stem → its boxes

WIDTH, HEIGHT = 80, 60


def blank(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Return a grey picture."""
    return np.full((height, width, 3), 150, np.uint8)


def write_picture(file: Path, image: np.ndarray | None = None) -> Path:
    """Write a picture, grey unless one is given."""
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), blank() if image is None else image)
    return file


def yolo_line(box: Box, kind: int = 0, width: int = WIDTH, height: int = HEIGHT) -> str:
    """Return a YOLO label line of a box."""
    x1, y1, x2, y2 = box
    return f"{kind} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} {(x2 - x1) / width} {(y2 - y1) / height}"


def write_yolo(folder: Path, boxes: Boxes) -> Path:
    """Write images/ and labels/."""
    for stem, rows in boxes.items():
        write_picture(folder / "images" / f"{stem}.png")
        write_text(folder / "labels" / f"{stem}.txt", [yolo_line(row) for row in rows])
    return folder


def write_yolo_beside(folder: Path, boxes: Boxes) -> Path:
    """Write pictures and texts side by side, as Darknet has them."""
    for stem, rows in boxes.items():
        write_picture(folder / f"{stem}.png")
        write_text(folder / f"{stem}.txt", [yolo_line(row) for row in rows])
    return folder


def write_coco(folder: Path, boxes: Boxes, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """Write images/ and annotations/instances.json."""
    document = coco_of(boxes, size)
    for stem in boxes:
        write_picture(folder / "images" / f"{stem}.png")
    write_text(folder / "annotations" / "instances.json", [json.dumps(document)])
    return folder


def coco_of(boxes: Boxes, size: tuple[int, int] = (WIDTH, HEIGHT)) -> dict[str, list[dict[str, object]]]:
    """Return a COCO document."""
    images = [{"id": n, "file_name": f"{s}.png", "width": size[0], "height": size[1]} for n, s in enumerate(boxes, 1)]
    rows = [(n, box) for n, stem in enumerate(boxes, 1) for box in boxes[stem]]
    annotations = [
        {"id": k, "image_id": n, "category_id": 7, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
        for k, (n, (x1, y1, x2, y2)) in enumerate(rows, 1)
    ]
    return {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "lesion"}]}


def write_voc(folder: Path, boxes: Boxes) -> Path:
    """Write JPEGImages/ and Annotations/."""
    for stem, rows in boxes.items():
        write_picture(folder / "JPEGImages" / f"{stem}.png")
        objects = [voc_object(row) for row in rows]
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        text = f"<annotation><filename>{stem}.png</filename>{size}{''.join(objects)}</annotation>"
        write_text(folder / "Annotations" / f"{stem}.xml", [text])
    return folder


def voc_object(box: Box, difficult: int = 0) -> str:
    """Return a VOC object: pixel indices from 1, both ends inside."""
    values = zip(("xmin", "ymin", "xmax", "ymax"), (box[0] + 1, box[1] + 1, box[2], box[3]), strict=True)
    corners = "".join(f"<{tag}>{value}</{tag}>" for tag, value in values)
    return f"<object><name>lesion</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox></object>"


def write_corner_table(folder: Path, boxes: Boxes) -> Path:
    """Write a table with a row for each box, and one without numbers for a picture that shows none."""
    rows = []
    for stem, found in boxes.items():
        write_picture(folder / f"{stem}.png")
        rows += [{"filename": f"{stem}.png", "n_boxes": len(found), **_corners(box)} for box in found or [None]]
    return write_table(folder, rows)


def write_list_table(folder: Path, boxes: Boxes) -> Path:
    """Write a table with a row for each picture and its boxes in one column."""
    for stem in boxes:
        write_picture(folder / "images" / f"{stem}.png")
    listed = [[[*box, "red"] for box in found] for found in boxes.values()]
    rows = [
        {"file": f"images/{stem}.png", "boxes_px_x1y1x2y2_kind": json.dumps(found), "ignore_boxes_px": "[]"}
        for stem, found in zip(boxes, listed, strict=True)
    ]
    return write_table(folder, rows)


def _corners(box: Box | None) -> dict[str, object]:
    return dict(zip(("x1", "y1", "x2", "y2"), box if box is not None else [""] * 4, strict=True))


def write_table(folder: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """Write rows as labels.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return folder


def write_text(file: Path, lines: Iterable[str]) -> Path:
    """Write lines of text."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n" if lines else "", encoding="utf-8")
    return file


def turned_by_exif(image: np.ndarray, orientation: int) -> bytes:
    """Return a JPEG whose EXIF orientation says how a viewer has to turn it."""
    good, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert good
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
    body = b"Exif\0\0" + tiff
    data = jpeg.tobytes()
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


FORMATS = {
    "yolo": write_yolo,
    "yolo beside": write_yolo_beside,
    "coco": write_coco,
    "voc": write_voc,
    "table of corners": write_corner_table,
    "table of lists": write_list_table,
}
