"""What is kept on disks: shared networks, checkpoints of trainings, columns of knowledge."""
