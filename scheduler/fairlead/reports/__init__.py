"""Questions people ask of the books. Rows of integers; the command lines and the HTTP API only format them."""
