"""Every part of the service, made from the settings and handed its neighbours.

`registry` says whose mail is ours, `parts` makes what lasts as long as the service does, and `front` makes
what meets clients, anew when other settings are taken over. Only objects are made here: no thread, socket,
file or database.
"""
