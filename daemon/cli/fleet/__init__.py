"""`visaged fleet`: cameras over the machines of a Ray cluster."""
