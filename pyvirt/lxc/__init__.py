"""What liblxc reads and what it says, as text: pure."""
