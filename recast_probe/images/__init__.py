"""Reading pictures and masks from elsewhere."""
