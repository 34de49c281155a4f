"""What the kit measures; each module has a function that is given a `Report` and `Options`."""
