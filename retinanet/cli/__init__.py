"""What the scripts share: flags, what flags name, how a script ends."""
