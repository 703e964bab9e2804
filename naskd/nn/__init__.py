"""Parts of networks that students, teachers and losses share, and what networks cost."""
