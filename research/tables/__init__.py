"""Tables, pages and model cards of the studies."""
