"""What ``import scenetrack`` offers to notebooks and programs."""
