"""Receivers of alerts: mail by SMTP, and HTTP POST of our own JSON or of Slack's."""

from __future__ import annotations

import json
import os
import smtplib
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from functools import partial
from typing import Any

from pipeline.stages.watch.alerts import Message, Send
from pipeline.stages.watch.site_config import Email, SiteConfig, Webhook

SECONDS = 15.0


def build_senders(site: SiteConfig) -> dict[str, Send]:
    """Return how to send to each configured receiver, by its name."""
    senders: dict[str, Send] = {hook.name: partial(post, hook) for hook in site.webhooks}
    return senders | ({"email": partial(mail, site.email)} if site.email else {})


def mail(email: Email, message: Message) -> None:
    """Send a message by mail.

    Raises:
        OSError: the server does not answer, or refuses the mail.
    """
    letter = EmailMessage()
    letter["Subject"], letter["From"], letter["To"] = message.subject(), email.sender, ", ".join(email.to)
    letter.set_content(message.text() + "\n")
    with _connected(email) as server:
        if email.user:
            server.login(email.user, os.environ.get(email.password_env, ""))
        server.send_message(letter)


@contextmanager
def _connected(email: Email) -> Iterator[smtplib.SMTP]:
    context = ssl.create_default_context()
    if email.tls == "tls":
        with smtplib.SMTP_SSL(email.host, email.port, timeout=SECONDS, context=context) as server:
            yield server
        return
    with smtplib.SMTP(email.host, email.port, timeout=SECONDS) as server:
        if email.tls == "starttls":
            server.starttls(context=context)
        yield server


def post(hook: Webhook, message: Message) -> None:
    """Send a message by HTTP POST.

    Raises:
        OSError: the address does not answer, or with an error or a redirect.
        ConfigError: the environment variable with the address is not set, or holds something else.
    """
    slack = {"text": f"*{message.subject()}*\n{message.text()}"}
    body = json.dumps(slack if hook.form == "slack" else message.to_json()).encode()
    request = urllib.request.Request(hook.address(), body, {"Content-Type": "application/json"}, method="POST")
    with urllib.request.build_opener(_NoRedirect).open(request, timeout=SECONDS):
        return


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: the POST would be followed by a GET, which leaves the message out."""

    def redirect_request(self, *_: Any) -> None:
        return None
