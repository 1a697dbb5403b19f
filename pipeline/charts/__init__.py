"""Charts as SVG text, from plain numbers: no files, no scripts, no styles of their own."""
