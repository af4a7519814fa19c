"""Videos in, predictions of a trained run out: tables, plots, drawn videos."""
