"""Gradients that are the mean over the ranks; parameters that are not the same on them."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist


def join_gradients(parameters: Sequence[torch.Tensor], ranks: int) -> None:
    """Let every backward pass end with the mean of the gradients over the ranks.

    They are sent as one message when the pass has ended. A parameter that has the hook already
    gets no second one.

    Args:
        parameters: leaf tensors, in the same order on all ranks.
        ranks: how many.
    """
    joined = [p for p in parameters if getattr(p, HOOK, None) is None]
    if not joined:
        return
    pending: list[bool] = []

    def finish() -> None:
        pending.clear()
        for dtype in sorted({p.dtype for p in joined}, key=str):
            gradients = [p.grad for p in joined if p.grad is not None and p.dtype == dtype]
            if not gradients:
                continue
            flat = torch.cat([g.flatten() for g in gradients])
            dist.all_reduce(flat)
            flat /= ranks
            parts = flat.split([g.numel() for g in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def hook(_: torch.Tensor) -> None:
        if not pending:
            pending.append(True)
            torch.autograd.Variable._execution_engine.queue_callback(finish)

    for parameter in joined:
        setattr(parameter, HOOK, parameter.register_post_accumulate_grad_hook(hook))


HOOK = "joins_gradients"


def part_gradients(parameters: Sequence[torch.Tensor]) -> None:
    """Take back ``join_gradients``: each rank's gradients are its own again."""
    for parameter in parameters:
        hook = parameter.__dict__.pop(HOOK, None)
        if hook is not None:
            hook.remove()


def leave_out_sharded_rows(module: torch.nn.Module) -> list[str]:
    """Let DistributedDataParallel leave the rows of sharded banks as they are.

    It gives every rank the parameters of rank 0, and the rows of a sharded bank are parameters for
    it. Call this before a module that contains a sharded bank is wrapped.

    Args:
        module: what will be wrapped.

    Returns:
        The names of the parameters that are left out.

    Example:
    ```python
    from instdisc_torch import leave_out_sharded_rows

    assert leave_out_sharded_rows(model) == []  # on one device there are none
    ```
    """
    rows = {
        id(variable.value)
        for part in module.modules()
        for variable in getattr(part, "variables", ())
        if hasattr(variable, "whole_shape")
    }
    named: Any = module.named_parameters(remove_duplicate=False)
    names = sorted(name for name, parameter in named if id(parameter) in rows)
    before = getattr(module, "_ddp_params_and_buffers_to_ignore", [])
    object.__setattr__(module, "_ddp_params_and_buffers_to_ignore", [*before, *names])
    return names
