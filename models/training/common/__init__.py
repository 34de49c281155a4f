"""What the trainings of both networks share."""
