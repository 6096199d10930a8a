"""Virtio as bytes: guest memory, rings, requests and traces. Nothing here touches a guest."""
