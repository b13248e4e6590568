"""The average of two networks' weights: often better than either, at the cost of one (Wortsman et al. 2022, soups).

It works where one was trained on from the other, or both from the same start with small rates: between such weights the
loss hardly rises. Two networks trained apart have no useful average.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from derma_common.errors import ModelError
from derma_common.inference.card import read_card, verified_file
from derma_training.classifier.folded import fold_norms, load_exported
from derma_training.classifier.licences import normalised
from derma_training.classifier.trained import Trained


def averaged(run: Trained, directory: Path, share: float) -> Trained:
    """Return a run's network with `share` of the weights of the exported model in `directory`.

    Batch norms are folded into the convolutions first, as the exported model has them. Raises ModelError when the model
    has other classes or is of another architecture.
    """
    card = read_card(directory)
    if card.classes != run.classes:
        raise ModelError(f"{card.name} knows {', '.join(card.classes)}, the run {', '.join(run.classes)}")
    if not run.setup.folded:
        fold_norms(run.model.body)
    other = run.setup.network(folded=False)
    load_exported(other.body, verified_file(card, directory))
    own, theirs = run.model.state_dict(), other.state_dict()
    if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in theirs.items()}:
        raise ModelError(f"{card.name} is a {card.architecture} of other layers than the run's")
    run.model.load_state_dict({name: own[name].lerp(theirs[name], share) for name in own})
    inherited = (*run.setup.inherited, normalised(card.licence.partition("(")[0]))
    return replace(run, setup=replace(run.setup, folded=True, inherited=inherited))
