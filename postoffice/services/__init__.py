"""Services the stages share: the DNS and the journal."""
