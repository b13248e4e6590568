"""Pictures of a report: for each class its surest right and its surest wrong answer, and where the network looked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from derma_common.inference.explain import occlusion, overlay
from derma_common.preprocess import Image, resize, to_tensor
from derma_common.recordings import read_picture
from derma_training.classifier.evaluation.figures import Scored
from derma_training.classifier.evaluation.measure import Judged
from derma_training.classifier.evaluation.predict import lesion_crop
from derma_training.classifier.metrics import decisions

Floats = npt.NDArray[np.float64]

NOTABLE = 0.1  # loss of probability below which no place is shown as one that matters


def examples(scored: Scored) -> list[int]:
    """Return for each class that occurs the index of its surest right answer and of its surest wrong one."""
    answers, confidence = decisions(scored.probabilities), scored.probabilities.max(axis=1)
    chosen = []
    for c in np.unique(scored.truth):
        for right in (True, False):
            candidates = np.flatnonzero((scored.truth == c) & ((answers == c) == right))
            if len(candidates):
                chosen.append(int(candidates[confidence[candidates].argmax()]))
    return chosen


def panels(judged: Judged) -> list[tuple[str, Mapping[str, Image]]]:
    """Return (title, name -> (S, S, 3) uint8 BGR) for `examples`: the crop and what the first network looked at.

    Occlusion for every network; saliency and Grad-CAM too where the network is a checkpoint.
    """
    return [_panel(judged, index) for index in examples(judged.scored)]


def _panel(judged: Judged, index: int) -> tuple[str, Mapping[str, Image]]:
    network, row, scored = judged.networks[0], judged.rows[index], judged.scored
    answer = int(scored.probabilities[index].argmax())
    classes, confidence = scored.classes, scored.probabilities[index, answer]
    whole = lesion_crop(row, read_picture(row.file), network.crop_margin, judged.request.whole)
    crop = resize(whole, network.size_px)
    membership = judged.scale.membership(network.classes)

    def probabilities(crops: Sequence[Image]) -> Floats:
        return np.asarray(network.probabilities(crops) @ membership)

    losses = occlusion(probabilities, crop, answer)
    shown = {"crop": crop, "occlusion": overlay(crop, losses if losses.max() >= NOTABLE else np.zeros_like(losses))}
    if network.module is not None:
        from derma_training.classifier.evaluation.gradients import grad_cam, saliency

        own = network.probabilities([crop])[0] * membership[:, answer]
        tensor, target = to_tensor([crop], network.mean, network.std), int(own.argmax())
        shown["saliency"] = overlay(crop, saliency(network.module, tensor, target))
        shown["Grad-CAM"] = overlay(crop, grad_cam(network.module, tensor, target))
    return f"{classes[scored.truth[index]]}, answer {classes[answer]} {confidence:.2f}", shown
