"""Tables of recorded trainings: to ask questions of search in seconds, without a GPU and without images."""

from naskd.tables.files import Training, TrainingTable, read_table, write_table
from naskd.tables.recorded import Account, Recorded, RecordedTable, Trainings

__all__ = [
    "Account",
    "Recorded",
    "RecordedTable",
    "Training",
    "TrainingTable",
    "Trainings",
    "read_table",
    "write_table",
]
