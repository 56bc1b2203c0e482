"""A finished method as one file, and what is done with it: prediction, explanation, serving."""
