"""What guards the app and runs its trainings."""
