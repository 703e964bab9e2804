"""Stopping rules that come with naskd, beside :class:`~naskd.study.stopping.NeverStop`."""
