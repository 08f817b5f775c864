"""A base that was loaded, held against its files: whole, and of the shapes that its configuration says."""

from typing import Any

from torch import nn

from irm_lite.core.errors import BaseModelError

_EMBEDDINGS, _HEAD = "model.embed_tokens.", "lm_head."  # a row a token


def require_whole(model: nn.Module, loading: dict[str, Any], name: str) -> None:
    """Raise BaseModelError where the file lacked weights, which transformers fills with random numbers, or had other layers.

    A weight of another shape transformers reports unless it quantises it: then the layer holds it, and its first forward fails.
    """
    misfits = [(key, tuple(found), tuple(wanted)) for key, found, wanted in loading["mismatched_keys"]]
    for place, linear in model.named_modules():
        if isinstance(linear, nn.Linear):
            weight: Any = linear.weight
            found = tuple(weight.quant_state.shape if hasattr(weight, "quant_state") else weight.shape)
            if found != (wanted := (linear.out_features, linear.in_features)):
                misfits.append((f"{place}.weight", found, wanted))
    if misfits:
        key, found, wanted = min(misfits)
        rows = {found[0] for _, found, wanted in misfits if found[1:] == wanted[1:]}
        stale = any(each.startswith(_EMBEDDINGS) for each, *_ in misfits) and len(rows) == 1
        stale &= all(each.startswith((_EMBEDDINGS, _HEAD)) for each, *_ in misfits)
        hint = f"set vocab_size to {found[0]} in its config.json" if stale else "download or convert it again"
        raise BaseModelError(f"{name}: {key} is {found}, its configuration says {wanted}", hint)
    lost = [*loading["missing_keys"]]
    spare = [key for key in loading["unexpected_keys"] if ".layers." in key and "inv_freq" not in key]
    if lost or spare:
        example = sorted(map(str, lost or spare))[0]
        kind = "lacks" if lost else "has other layers than its configuration:"
        raise BaseModelError(f"{name} {kind} {len(lost or spare)} weights, {example} among them", "download or convert it again")
