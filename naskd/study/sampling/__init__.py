"""What is learned of a study while it searches: how curves go on, how good designs are, and which to try next."""
