"""One script for each table, figure and claim: `python -m analyses.table_1 --quick`."""
