"""A training run's checkpoint is measured like an exported model, and its gradients are shown."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")
pytest.importorskip("timm", reason="needs the train extra: pip install 'derma[train]'")

from support.painted import CLASSES, paint_table  # noqa: E402

from derma_common.errors import ModelError  # noqa: E402
from derma_training.classifier.evaluation.checkpoints import open_checkpoint  # noqa: E402
from derma_training.classifier.evaluation.measure import Request, judge  # noqa: E402
from derma_training.classifier.evaluation.models import open_network  # noqa: E402
from derma_training.classifier.evaluation.panels import panels  # noqa: E402
from derma_training.classifier.recipes import DERMA  # noqa: E402
from derma_training.classifier.run import new_run, save_checkpoint  # noqa: E402
from derma_training.classifier.setup import Setup  # noqa: E402

pytestmark = pytest.mark.train

SETUP = Setup("efficientnet_b0", CLASSES, 64, (0.5,) * 3, (0.25,) * 3, replace(DERMA, ema_decay=0.0))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stopped before its first step."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    save_checkpoint(new_run(SETUP, SETUP.network(folded=False), "cpu"), SETUP, folder)
    return folder


def test_a_run_is_opened_by_its_folder_and_answers_as_its_network(run_folder: Path) -> None:
    network = open_network(str(run_folder), threads=1)
    crops = [np.random.default_rng(n).integers(0, 256, (64, 64, 3), dtype=np.uint8) for n in range(3)]
    images = np.stack([crop[:, :, ::-1].transpose(2, 0, 1) for crop in crops]) / 255.0
    with torch.no_grad():
        wanted = network.module(torch.from_numpy((images - 0.5) / 0.25).float()).numpy()
    answers = network.answer(crops)
    assert answers.logits == pytest.approx(wanted, abs=1e-4)
    assert answers.features is not None and answers.features.shape == (3, 1280)
    assert network.classes == CLASSES and network.temperature == 1.0


def test_the_panels_of_a_checkpoint_show_gradients_too(run_folder: Path, tmp_path: Path) -> None:
    table = paint_table(tmp_path, ["NV", "MEL"], [{"label": "NV"}, {"label": "MEL"}])
    with ExitStack() as opened:
        shown = panels(judge(Request(table, (str(run_folder),)), opened))
    for _, pictures in shown:
        assert list(pictures) == ["crop", "occlusion", "saliency", "Grad-CAM"]
        assert all(picture.shape == (64, 64, 3) for picture in pictures.values())


def test_a_run_on_metadata_is_refused(tmp_path: Path) -> None:
    setup = replace(SETUP, sites=("back",))
    save_checkpoint(new_run(setup, setup.network(folded=False), "cpu"), setup, tmp_path)
    with pytest.raises(ModelError, match="metadata"):
        open_checkpoint(tmp_path, threads=1)
