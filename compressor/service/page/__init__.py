"""The service's page: what a person sees of it in a browser.

Server-rendered, so that reading and submitting work without JavaScript; scripts only keep what is shown up to date.
"""
