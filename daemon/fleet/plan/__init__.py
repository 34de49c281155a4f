"""Who holds which camera: decided here, without Ray, clocks and threads of its own."""
