"""A fusion that reads the experts' feature maps, a method of the super-resolution study."""
