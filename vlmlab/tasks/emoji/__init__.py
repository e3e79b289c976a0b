"""The embedded drawings: concepts, pictures, captions, tasks."""
