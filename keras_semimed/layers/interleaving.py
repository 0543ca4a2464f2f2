"""One batch in which each labelled view stands beside unlabelled ones (InterLUDE)."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_semimed.losses.reductions import shapes_agree


def interleave(labeled_weak: Any, labeled_strong: Any, unlabeled_weak: Any, unlabeled_strong: Any) -> Any:
    """Puts four sets of views into one batch, group by group.

    With mu unlabelled images for each labelled one, group i holds the weak views of labelled image i and of unlabelled
    images i mu to i mu + mu - 1, then their strong views (Huang et al., InterLUDE, ICML 2024).

    Args:
        labeled_weak: of any dtype. Shape: `(B, ...)`.
        labeled_strong: of the same images, in the same order. Shape: `(B, ...)`.
        unlabeled_weak: Shape: `(G, ...)`, where G = mu B.
        unlabeled_strong: of the same images, in the same order. Shape: `(G, ...)`.

    Returns:
        Shape: `(2 B + 2 G, ...)`.

    Raises:
        ValueError: G is no multiple of B, or weak and strong views are not of one shape.
    """
    pairs = (("labeled", labeled_weak, labeled_strong), ("unlabeled", unlabeled_weak, unlabeled_strong))
    for name, weak, strong in pairs:
        if not shapes_agree(tuple(strong.shape), tuple(weak.shape)):
            raise ValueError(
                f"`{name}_strong` must be of the shape of `{name}_weak` {tuple(weak.shape)}, found "
                f"{tuple(strong.shape)}."
            )
    (labeled, *rest), (unlabeled, *_) = ops.shape(labeled_weak), ops.shape(unlabeled_weak)
    if isinstance(labeled, int) and isinstance(unlabeled, int) and (unlabeled < 1 or unlabeled % labeled):
        raise ValueError(
            f"`unlabeled_weak` must be a multiple of the {labeled} labelled images, found {unlabeled}: each of "
            "them stands beside as many unlabelled ones."
        )
    # A batch that is no whole number of groups and whose size is not known here fails when it is reshaped.
    groups = [
        ops.concatenate(
            [known[:, None], ops.reshape(hidden, (labeled, unlabeled // labeled, *rest))], axis=1
        )  # (B, 1 + mu, ...)
        for known, hidden in ((labeled_weak, unlabeled_weak), (labeled_strong, unlabeled_strong))
    ]
    return ops.reshape(ops.stack(groups, axis=1), (2 * labeled + 2 * unlabeled, *rest))


def deinterleave(values: Any, labeled: Any) -> tuple[Any, Any, Any, Any]:
    """Takes apart what was computed from a batch of `interleave`.

    Args:
        values: Shape: `(2 B + 2 mu B, ...)`.
        labeled: number of labelled images B.

    Returns:
        Of the weak and the strong labelled views, `(B, ...)` each, and of the weak and the strong unlabelled ones,
        `(B, mu, ...)` each: row i beside labelled image i. Gradient flows through all of them.

    Raises:
        ValueError: the values are not of whole groups.
    """
    count, *rest = ops.shape(values)
    if isinstance(count, int) and isinstance(labeled, int) and (count < 4 * labeled or count % (2 * labeled)):
        raise ValueError(f"`values` must be 2 B (1 + mu) rows of B = {labeled} labelled images, found {count}.")
    groups = ops.reshape(values, (labeled, 2, -1, *rest))
    return groups[:, 0, 0], groups[:, 1, 0], groups[:, 0, 1:], groups[:, 1, 1:]
