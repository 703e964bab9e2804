"""What ``kills.py`` is made of: ``processes`` to be killed, the ``study`` they run, and how it is ``judged``."""
