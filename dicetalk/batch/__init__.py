"""Many clips from one table or two folders: rows become jobs, and an engine makes them."""
