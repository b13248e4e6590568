"""Make the sample recording: a camera passing over drawn skin, with the truth beside it.

    python -m derma_training.sample OUT_DIR

Writes drawn-exam.mp4, drawn-exam.json (every lesion of every frame) and drawn-exam.txt (what it is).
Needs no torch and no photograph.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2

from derma_common.drawn.camera import SyntheticCamera
from derma_common.errors import DermaError, ResourceError

NAME = "drawn-exam"
SEED = 142
FRAMES = 168
FPS = 14.0
WIDTH, HEIGHT = 1280, 720
KINDS = (
    "irregular",
    "nevus",
    "nodular",
    "keratosis",
    "vascular",
    "nevus",
    "nevus",
    "irregular",
    "nevus",
    "keratosis",
    "nodular",
)
LABEL = """drawn-exam.mp4 is drawn by derma (python -m derma_training.sample), not filmed.
It shows no person, and no photograph went into it. drawn-exam.json holds the exact boxes (xyxy, px) of
every drawn lesion in every frame; the kinds are names of drawings and nothing else.
Licence: as the project's code.
"""


def camera() -> SyntheticCamera:
    """Return the camera that the sample is filmed with."""
    return SyntheticCamera(
        SEED,
        FRAMES,
        WIDTH,
        HEIGHT,
        lesions=len(KINDS),
        kinds=KINDS,
        fitzpatrick=2.4,
        background=True,
        blurred_moments=True,
        noise=1.2,
    )


def truth(source: SyntheticCamera) -> dict[str, Any]:
    """Return the ground truth: the lesions visible in each frame, by lesion id, kind and box xyxy px."""
    frames = []
    for seq in range(source.frames):
        boxes, indices = source.frame_lesions(seq)
        lesions = [
            {"id": n + 1, "kind": source.lesions[n].kind, "box": [round(float(v), 1) for v in box]}
            for n, box in zip(indices, boxes, strict=True)
        ]
        frames.append({"seq": seq, "lesions": lesions})
    return {"drawn": True, "fps": FPS, "width": source.width, "height": source.height, "frames": frames}


def write(directory: Path) -> None:
    """Write the recording, its truth and its label into `directory`. Raises ResourceError."""
    directory.mkdir(parents=True, exist_ok=True)
    source = camera()
    video = directory / f"{NAME}.mp4"
    code = cv2.VideoWriter.fourcc(*"mp4v")
    film = cv2.VideoWriter(str(video), code, FPS, (source.width, source.height))
    if not film.isOpened():
        raise ResourceError(f"{video} cannot be written: no space, no permission, or OpenCV lacks the mp4v encoder")
    for seq in range(source.frames):
        film.write(source.image(seq))
    film.release()
    text = json.dumps(truth(source), separators=(",", ":")).replace('{"seq"', '\n{"seq"')
    (directory / f"{NAME}.json").write_text(text + "\n", encoding="utf-8")
    (directory / f"{NAME}.txt").write_text(LABEL, encoding="utf-8")


def main() -> int:
    """Write the sample into the directory named on the command line."""
    if len(sys.argv) != 2:
        print("usage: python -m derma_training.sample OUT_DIR", file=sys.stderr)
        return 2
    try:
        write(Path(sys.argv[1]))
    except DermaError as error:
        print(f"error: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
