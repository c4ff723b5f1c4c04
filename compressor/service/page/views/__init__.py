"""One module for each place of the page: what it shows, and what its forms do."""
