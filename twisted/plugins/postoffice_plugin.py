"""Makes `twistd postoffice` known."""

from __future__ import annotations

from twisted.application.service import ServiceMaker

postoffice = ServiceMaker(
    "Postoffice", "postoffice.tap", "A mail transfer agent: SMTP in, mailboxes and relaying out", "postoffice"
)
