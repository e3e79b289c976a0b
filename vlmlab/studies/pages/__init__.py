"""What a study shows: tables, provenance of figures, the gallery."""
