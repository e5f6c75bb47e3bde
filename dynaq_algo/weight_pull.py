"""The pull of a network's weights back to where learning began, so that the network forgets slowly."""

from __future__ import annotations

from collections.abc import Mapping

import torch as th
from torch import nn

__all__ = ["Anchor", "anchors_of"]


class Anchor(nn.ParameterList):
    """The present weights of a network, to which :meth:`pull` brings them back later.

    Kumar et al. ("Maintaining Plasticity in Continual Learning via Regenerative Regularization", 2023, L2 Init) add a
    term to the loss: the squared distance between the weights and their initial values. Here the pull is decoupled from
    the gradient, as weight decay is in AdamW: the optimiser does not scale the pull.

    Args:
        network: The network whose weights are kept.

    Example:
        >>> network = nn.Linear(3, 1)
        >>> anchor = Anchor(network)
        >>> network.weight.data += 1
        >>> anchor.pull(network, 1.0)
        >>> bool((network.weight == anchor[0]).all())
        True
    """

    def __init__(self, network: nn.Module):
        super().__init__(nn.Parameter(weight.detach().clone(), requires_grad=False) for weight in network.parameters())

    @th.no_grad()
    def pull(self, network: nn.Module, share: float) -> None:
        """Move each weight a share (0 to 1) of the way back: `p -= share * (p - p0)`."""
        for weight, beginning in zip(network.parameters(), self, strict=True):
            weight.lerp_(beginning, share)


def anchors_of(networks: Mapping[str, nn.Module]) -> nn.ModuleDict:
    """An :class:`Anchor` of each network that has weights, by its name; a Gaussian process has none."""
    return nn.ModuleDict({name: Anchor(network) for name, network in networks.items() if [*network.parameters()]})
