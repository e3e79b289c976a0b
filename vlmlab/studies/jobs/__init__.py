"""Work in processes of its own: trainings and notebooks, here or on a cluster."""
