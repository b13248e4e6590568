"""What runs away from the exam rooms: second opinions and the archive of findings."""
