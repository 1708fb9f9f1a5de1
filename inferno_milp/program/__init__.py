"""The program: servers pick columns within limits. It knows no accelerator, no model and no problem."""
