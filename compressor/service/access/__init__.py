"""Who may do what: keys, sessions of the page, projects, and what is refused before any route runs."""
