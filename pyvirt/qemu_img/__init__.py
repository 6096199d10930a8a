"""What ``qemu-img`` is told and what it answers: words and values, nothing runs here."""
