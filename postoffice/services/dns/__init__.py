"""The DNS as the office asks it: a stub resolver over Twisted, behind `postoffice.interfaces.IResolver`."""
