"""What people see of the cameras while they look: pictures, and how each camera does."""
