"""Questions about several objects, or one of them."""
