"""What is left out when there is more to analyse than the machine can: which cameras, how much, and until when."""
