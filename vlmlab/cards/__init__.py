"""Model cards of the embedded models: what they can do, measured against chance."""
