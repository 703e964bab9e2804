"""What people look at: fronts as tables, CSV, a picture and one self-contained page.

Everything here reads a *run record*, the plain dictionary that ``naskd front RUN --json --all`` prints, and
shows it. A report never trains and opens no storage. This is the only room with percent signs and with FLOPs:
everywhere else an accuracy is a fraction and a cost is counted in MACs.

A record may be of any age: keys that are missing, None or NaN leave a gap in the report, never an error.
"""

from naskd.report.front_csv import front_csv
from naskd.report.front_table import FrontTable, front_table
from naskd.report.html import write_html
from naskd.report.listings import dry_run_table, methods_table, space_table
from naskd.report.plots import draw_curves, draw_front, draw_importance, write_png
from naskd.report.trial_table import trial_table

__all__ = [
    "FrontTable",
    "draw_curves",
    "draw_front",
    "draw_importance",
    "dry_run_table",
    "front_csv",
    "front_table",
    "methods_table",
    "space_table",
    "trial_table",
    "write_html",
    "write_png",
]
