"""A copy of a user's module in inference mode, in which every weight is a plain parameter."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from sefa.custom.user_code import blamed, kind

# Suffixes that home-made spectral norms use for the trained weight, and for the two vectors of their power iteration.
RAW = ("_bar", "_orig")
VECTORS = ("_u", "_v")


def copy_for_inference(module: nn.Module) -> nn.Module:
    """Return a copy in inference mode, float32, on the CPU, in which every weight is a plain parameter."""
    if isinstance(module, nn.DataParallel):
        module = module.module
    module = getattr(module, "_orig_mod", module)  # the module that torch.compile wrapped
    with torch.no_grad():
        for layer in module.modules():  # Recompute weights: those still attached to a training graph cannot be copied.
            for hook in _norms(layer):
                if isinstance(hook, WeightNorm):
                    setattr(layer, hook.name, hook.compute_weight(layer))
                else:
                    setattr(layer, hook.name, hook.compute_weight(layer, do_power_iteration=False))
        with blamed(f"{kind(module)} cannot be copied: "):
            module = copy.deepcopy(module, _computed(module)).cpu().float().eval()
        for path, layer in list(module.named_modules()):
            inner = "module" if isinstance(layer, nn.DataParallel) else "_orig_mod"
            if hasattr(layer, inner):
                module.set_submodule(path, _Passing(inner, layer.get_submodule(inner)).eval())
        for layer in list(module.modules()):
            for hook in _norms(layer):
                (remove_weight_norm if isinstance(hook, WeightNorm) else remove_spectral_norm)(layer, hook.name)
            if parametrize.is_parametrized(layer) and not isinstance(layer, torch.jit.ScriptModule):
                _make_plain(layer)
    return module


def _make_plain(layer: nn.Module) -> None:
    """Replace parametrized weights by plain ones.

    torch's `remove_parametrizations` would also change the original module, because both share a class.
    """
    names = list(layer.parametrizations)  # type: ignore[arg-type]
    weights = {name: getattr(layer, name).detach().clone() for name in names}
    layer.__class__ = type(layer).__bases__[0]
    del layer.parametrizations
    for name, weight in weights.items():
        layer.register_parameter(name, nn.Parameter(weight))


def _norms(layer: nn.Module) -> list[SpectralNorm | WeightNorm]:
    """Return the hooks with which torch.nn.utils.spectral_norm and weight_norm compute a weight at each call."""
    hooks = () if isinstance(layer, torch.jit.ScriptModule) else layer._forward_pre_hooks.values()
    return [hook for hook in hooks if isinstance(hook, SpectralNorm | WeightNorm)]


def _computed(module: nn.Module) -> dict[int, Tensor]:
    """Copy the tensors that layers keep from a training step, by identity: deepcopy refuses tensors with a graph."""
    kept = [value for layer in module.modules() for value in vars(layer).values() if isinstance(value, Tensor)]
    return {id(tensor): tensor.detach().clone() for tensor in kept if not tensor.is_leaf}


def fold_own_norms(module: nn.Module, changed: list[str]) -> nn.Module:
    """Replace the user's own spectral norms by plain parameters: the weights that they computed in the last run.

    Such norms update their vectors at every call, even in inference mode.

    Args:
        module: The module, which has just rendered an image.
        changed: Names of the parameters and buffers that rendering changed.

    Returns:
        The module, or its replacement.
    """
    if isinstance(module, torch.jit.ScriptModule):
        return module
    for full_name in changed:
        path, _, name = full_name.rpartition(".")
        base = next((name.removesuffix(suffix) for suffix in VECTORS if name.endswith(suffix)), "")
        layer = module.get_submodule(path)
        raw = next((base + suffix for suffix in RAW if base and base + suffix in dict(layer.named_parameters())), None)
        weight = getattr(layer, base, None) if raw else None
        if raw is None or not isinstance(weight, Tensor) or weight.shape != getattr(layer, raw).shape:
            continue
        for gone in (base, raw, *(base + suffix for suffix in VECTORS)):
            if hasattr(layer, gone):
                delattr(layer, gone)
        layer.register_parameter(base, nn.Parameter(weight.detach().clone()))
        layer._forward_pre_hooks.clear()  # the hooks that computed the weight
        module = _without_wrapper(module, path)
    return module


def _without_wrapper(module: nn.Module, path: str) -> nn.Module:
    """Replace a wrapper that holds nothing but the layer at `path` by a module that only calls the layer."""
    outer, _, name = path.rpartition(".")
    wrapper = module.get_submodule(outer)
    if isinstance(wrapper, nn.Sequential) or [name for name, _ in wrapper.named_children()] != [name]:
        return module
    passing = _Passing(name, wrapper.get_submodule(name)).eval()
    if not outer:
        return passing
    module.set_submodule(outer, passing)
    return module


class _Passing(nn.Module):
    """A module that only calls its one layer, which keeps its name."""

    def __init__(self, name: str, layer: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, layer)

    def forward(self, *arguments: object, **keywords: object) -> object:
        return self.get_submodule(self.name)(*arguments, **keywords)
