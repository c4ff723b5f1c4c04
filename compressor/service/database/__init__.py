"""The database: tables, how it is reached, and how older ones become the present one."""
