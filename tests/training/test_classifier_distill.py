"""Learning from labels and from another classifier."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")

from support.tiny_onnx import mean_colour_classifier  # noqa: E402

from derma_common.errors import ModelError  # noqa: E402
from derma_common.inference.card import InputSpec, ModelCard, sha256_of, write_card  # noqa: E402
from derma_training.classifier.distill import Distillation, distillation_loss  # noqa: E402

pytestmark = pytest.mark.train

CLASSES = ("MEL", "NV")
HALF = (0.5, 0.5, 0.5)
MATRIX = np.asarray([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]], dtype=np.float32)


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """A model whose logits are MATRIX @ mean colour, of 8 px pictures, at temperature 2."""
    (tmp_path / "model.onnx").write_bytes(mean_colour_classifier(MATRIX, 8))
    card = ModelCard(
        name="mean-colour",
        kind="classifier",
        architecture="none",
        file="model.onnx",
        sha256=sha256_of(tmp_path / "model.onnx"),
        input=InputSpec("image", 8, 8, max_batch=2),
        outputs=("logits",),
        classes=CLASSES,
        licence="CC0",
        temperature=2.0,
    )
    write_card(card, tmp_path)
    return tmp_path


def test_without_a_share_it_is_the_cross_entropy_and_with_all_of_it_the_labels_do_not_count() -> None:
    torch.manual_seed(0)
    logits, other, labels = torch.randn(5, 2), torch.randn(5, 2), torch.tensor([0, 1, 1, 0, 1])
    wanted = torch.nn.functional.cross_entropy(logits, labels)
    assert distillation_loss(logits, labels, other, share=0.0, smoothing=0.0) == pytest.approx(float(wanted))
    alone = distillation_loss(logits, labels, other, share=1.0)
    assert distillation_loss(logits, 1 - labels, other, share=1.0) == pytest.approx(float(alone))


def test_the_soft_part_is_hintons() -> None:
    student, master, temperature = np.asarray([[1.0, -1.0]]), np.asarray([[0.5, 2.0]]), 3.0
    p = np.exp(master / temperature) / np.exp(master / temperature).sum()
    q = np.exp(student / temperature) / np.exp(student / temperature).sum()
    wanted = temperature**2 * float((p * np.log(p / q)).sum())
    found = distillation_loss(
        torch.tensor(student), torch.tensor([0]), torch.tensor(master), share=1.0, temperature=temperature
    )
    assert float(found) == pytest.approx(wanted)


def test_a_student_that_answers_as_its_teacher_has_nothing_to_learn_from_it() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 2, requires_grad=True)
    distillation_loss(logits, torch.tensor([0, 1, 0, 1]), logits.detach(), share=1.0).backward()
    assert logits.grad is not None and float(logits.grad.abs().max()) < 1e-6


@pytest.mark.parametrize("size", [8, 12])
def test_the_teacher_sees_the_students_batch_in_its_own_normalisation_and_size(teacher: Path, size: int) -> None:
    colours = np.asarray([[0.2, 0.5, 0.9], [1.0, 0.0, 0.3], [0.0, 0.0, 0.0]], dtype=np.float32)
    pixels = np.broadcast_to(colours[:, :, None, None], (3, 3, size, size))
    images = torch.from_numpy((pixels - 0.5) / 0.5)
    distillation = Distillation.open(teacher, CLASSES, HALF, HALF)
    found = distillation.teach(images)
    logits = torch.zeros(3, 2)
    labels = torch.tensor([0, 1, 0])
    assert float(distillation(logits, labels, images)) == pytest.approx(
        float(distillation_loss(logits, labels, found)), rel=1e-5
    )
    distillation.close()
    np.testing.assert_allclose(found.numpy(), colours @ MATRIX.T / 2.0, atol=1e-5)


def test_a_teacher_of_other_classes_is_refused(teacher: Path) -> None:
    with pytest.raises(ModelError, match="knows MEL, NV, but the data has NV, MEL"):
        Distillation.open(teacher, ("NV", "MEL"), HALF, HALF)
