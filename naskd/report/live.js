// Only in a page that naskd serve sends.
