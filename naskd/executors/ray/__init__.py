"""The executor on a Ray cluster, through Ray Tune. The only room that imports ray."""
