"""qcow2: header, snapshots, bitmaps, the layer and its check."""
