"""What people look at: fronts as tables, CSV, a picture and one self-contained page.

Everything here reads a *run record*, the plain dictionary that ``naskd front RUN --json --all`` prints, and
shows it. A report never trains and opens no storage. This is the only room with percent signs and with FLOPs:
everywhere else an accuracy is a fraction and a cost is counted in MACs.

A record may be of any age: keys that are missing, None or NaN leave a gap in the report, never an error.
"""
