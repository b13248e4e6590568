"""`darknet`: from Darknet's files to a model of derma and back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")
pytest.importorskip("onnx", reason="needs the train extra: pip install 'derma[train]'")

from support.darknet import random_network, thinned  # noqa: E402

from derma_common.errors import ModelError, ResourceError  # noqa: E402
from derma_common.inference.card import read_card  # noqa: E402
from derma_common.inference.onnx import run_file  # noqa: E402
from derma_training.detector.__main__ import main as detector_main  # noqa: E402
from derma_training.detector.commands.darknet import main  # noqa: E402
from derma_training.detector.darknet_weights import save_weights  # noqa: E402
from derma_training.detector.networks import network  # noqa: E402

pytestmark = pytest.mark.train


@pytest.fixture
def files(tmp_path):
    """A thin network as Darknet has it: net.cfg, net.weights, net.names."""
    net = random_network(thinned(network("yolov4-tiny", 2, 64, 96), 8))
    (tmp_path / "net.cfg").write_text(net.config.text)
    (tmp_path / "net.names").write_text("mole\nscar\n")
    save_weights(net, tmp_path / "net.weights")
    return [str(tmp_path / f"net.{end}") for end in ("cfg", "weights")]


def test_darknets_files_become_a_model(files, tmp_path, capsys):
    main(["read", *files, str(tmp_path / "mine"), "--names", str(tmp_path / "net.names"), "--licence", "CC0-1.0"])
    card = read_card(tmp_path / "mine")
    assert capsys.readouterr().out.strip() == card.id
    assert (card.name, card.classes, card.licence) == ("mine", ("mole", "scar"), "CC0-1.0")
    assert (card.input.width, card.input.height) == (64, 96)


def test_a_model_becomes_darknets_files_that_opencv_runs(tmp_path, full_model):
    main(["write", str(full_model), str(tmp_path / "out")])
    out = tmp_path / "out"
    assert (out / "net.names").read_text() == "lesion\n"
    (out / "net.cfg").write_text((out / "net.cfg").read_text().replace("[yolo]", "[yolo]\nthresh=0"))
    read = cv2.dnn.readNetFromDarknet(str(out / "net.cfg"), str(out / "net.weights"))
    image = np.random.default_rng(0).random((1, 3, 64, 64), dtype=np.float32)
    read.setInput(image)
    theirs = np.concatenate([rows[:, 5] for rows in read.forward(read.getUnconnectedOutLayersNames())])
    own = run_file(full_model / "model.onnx", {"image": image})["scores"].ravel()
    np.testing.assert_allclose(np.sort(own), np.sort(theirs), atol=1e-4)


@pytest.fixture(scope="module")
def full_model(tmp_path_factory):
    """An exported YOLOv4-tiny of 64 px: only networks by their name can be written."""
    from derma_training.detector.export import draft_card, export

    directory = tmp_path_factory.mktemp("models") / "tiny"
    net = random_network(network("yolov4-tiny", 1, 64, 64))
    export(net, directory, draft_card("tiny", net, 64, 64, ("lesion",), "none"))
    return directory


def test_what_is_wrong_is_one_line(files, tmp_path, capsys, full_model):
    out = str(tmp_path / "mine")
    with pytest.raises(ModelError, match=r"net\.none cannot be read"):
        main(["read", *files, out, "--names", str(tmp_path / "net.none")])
    (tmp_path / "net.names").write_text("mole\n")
    with pytest.raises(ModelError, match="2 classes apart, there are 1 names"):
        main(["read", *files, out, "--names", str(tmp_path / "net.names")])
    with pytest.raises(ResourceError, match="cannot be written"):
        main(["write", str(full_model), files[0]])
    assert detector_main(["darknet", "write", "yolov9-mole", out]) == 4
    assert "there is no model 'yolov9-mole'" in capsys.readouterr().err
