"""What follows predictions: reports, tables, plots, files. No torch."""
