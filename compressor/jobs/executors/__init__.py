"""Where jobs run: one after the other in this process, or side by side in processes of this machine."""
