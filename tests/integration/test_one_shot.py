"""`derma classify` says of a picture what a run says of it: the same networks, cuts and numbers."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
from support.place import Place
from support.runs import derma, up

from derma_common.recordings import open_recording
from derma_common.seqset import SeqSet


def test_a_picture_alone_gets_the_findings_of_a_run(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for picture in open_recording("synthetic://?frames=2&seed=3&width=640&height=480").pictures(SeqSet()):
        assert picture.image is not None
        cv2.imwrite(str(folder / f"{picture.seq}.png"), picture.image)
    with up(str(folder), **place.dirs) as run:
        assert run.finish()["delivered"] == 2
    stored = [json.loads(line) for line in run.derma("findings", "--json").stdout.splitlines()]
    done = derma("classify", str(folder), "--json", **place.dirs)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    lesions = [(Path(p["file"]).name, lesion) for p in told["pictures"] for lesion in p["lesions"]]
    assert len(lesions) == len(stored) > 0
    for finding, (file, lesion) in zip(stored, lesions, strict=True):
        assert (finding["file"], finding["models"]) == (file, told["models"])
        assert finding["box"] == pytest.approx(lesion["box"], abs=0.1)
        assert finding["score"] == pytest.approx(lesion["score"], abs=1e-3)
        assert finding["probabilities"] == pytest.approx(lesion["probabilities"], abs=1e-3)
