"""What `scenetrack predict` is made of: which images, in what rows, written where, and why so."""
