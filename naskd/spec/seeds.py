"""Named seed streams: every random number of a study comes from one integer and a name.

Streams are independent of trial numbers and of the order in which things happen, so that a trial that is
run again, on another worker or after a crash, draws the same numbers.
"""

import hashlib


def derive_seed(*parts: object) -> int:
    """A seed in [0, 2**63) from the text of `parts`, stable across processes and Python versions."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def trial_seed(study_seed: int, config_id: str, replicate: int = 0) -> int:
    """The seed of the `replicate`-th training of one design in one study."""
    return derive_seed("trial", study_seed, config_id, replicate)
