"""What a screen shows, from its pixels: pure, nothing here looks at a machine."""
