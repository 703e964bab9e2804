from naskd.spec.seeds import derive_seed, trial_seed


def test_seeds_are_the_same_for_ever() -> None:
    """Retrained students and stored teachers are found again by them."""
    assert derive_seed("trial", 0, "abc", 0) == 910283550700633208
    assert trial_seed(3, "abc", 2) == 2606985703899870580 == derive_seed("trial", 3, "abc", 2)


def test_every_part_counts_and_so_does_where_it_ends() -> None:
    found = [
        derive_seed("a", 1),
        derive_seed("a", 2),
        derive_seed("b", 1),
        derive_seed("a", 1, 1),
        derive_seed("a", 11),
        derive_seed("a1"),
        derive_seed(1, "a"),
        derive_seed(),
    ]
    assert len(set(found)) == len(found)


def test_seeds_fit_where_seeds_go() -> None:
    seeds = [trial_seed(study, "x", replicate) for study in range(20) for replicate in range(20)]
    assert len(set(seeds)) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62
