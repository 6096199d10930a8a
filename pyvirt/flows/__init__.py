"""Conversations with a running VM: generators that yield steps and do no I/O."""
