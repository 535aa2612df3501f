"""What a device class is tested with, ours or a plugin's: the contract and a scripted device."""
