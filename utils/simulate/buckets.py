"""Which gradients travel together, on sizes alone.

How it works: tensors are taken from the last to the first, as backward finishes them; a bucket is
closed once it holds its cap or more. The first cap is 1 MiB, the others 25 MiB, torch's. It is the
rule of utils.techniques.buckets and of torch's own, without tensors; the tests compare all three.
"""

from collections.abc import Sequence

MIB = 2**20
FIRST_BUCKET_BYTES, BUCKET_BYTES = MIB, 25 * MIB


def assign_buckets(
    tensor_bytes: Sequence[int],
    first_bytes: int = FIRST_BUCKET_BYTES,
    bucket_bytes: int = BUCKET_BYTES,
) -> list[list[int]]:
    """Places of the tensors (in the model's order) that each bucket holds, the last tensor first.

    Raises ValueError for a cap below one byte.
    """
    if first_bytes < 1 or bucket_bytes < 1:
        raise ValueError(
            f"A bucket needs a cap of at least one byte, not {first_bytes} and {bucket_bytes}."
        )
    buckets: list[list[int]] = []
    is_open, held_bytes = False, 0
    for place in reversed(range(len(tensor_bytes))):
        if not is_open:
            buckets.append([])
            held_bytes = 0
        buckets[-1].append(place)
        held_bytes += tensor_bytes[place]
        is_open = held_bytes < (first_bytes if len(buckets) == 1 else bucket_bytes)
    return buckets
