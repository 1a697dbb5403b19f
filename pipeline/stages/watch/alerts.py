"""Alerts as a state machine: a condition opens one alert and closes it with one recovery, however often it is seen.

States: opened (a message to some receiver is still on its way), open (all have it), recovered. The messages wait in
the catalogue and are sent in order; one that a receiver does not take is tried again, less and less often, for a day.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import now
from pipeline.data.catalogue.watch_schema import AlertMessageRow, AlertRow
from pipeline.stages.watch.troubles import Condition

FIRST_PAUSE, LONGEST_PAUSE, GIVE_UP = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
SENDING = timedelta(minutes=5)  # a message that is on its way for longer was being sent by a process that died
CLOCK_BOUND = ("missed:", "stalled:", "late:")
SENTENCE_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Message:
    """One message to a receiver: `event` is opened or recovered; `at` is when, in ISO format and UTC."""

    site: str
    event: str
    key: str
    severity: str
    sentence: str
    at: str

    def subject(self) -> str:
        """Return one line for a mail's subject or a chat."""
        sign = "OK" if self.event == "recovered" else self.severity.upper()
        return f"[{self.site}] {sign}: {self.key}"

    def text(self) -> str:
        """Return the message in two lines."""
        state = "This has recovered. It was: " if self.event == "recovered" else ""
        return f"{state}{self.sentence}\nSince {self.at} UTC."

    def to_json(self) -> dict[str, str]:
        """Return a plain dictionary for JSON."""
        return asdict(self)


Send = Callable[[Message], None]  # raises OSError if the receiver did not take it


def update_alerts(
    catalogue: Catalogue, conditions: Sequence[Condition], receivers: Sequence[str], held: bool = False
) -> None:
    """Open an alert for each new condition, keep those that last, recover those that are gone.

    Args:
        catalogue: where the alerts are.
        conditions: what is wrong now.
        receivers: names of those who get a message of each change.
        held: open and recover nothing that rests on the clock, since it has just jumped.
    """
    present = {condition.key: condition for condition in conditions}
    with catalogue.session() as session:
        alerts = session.scalars(select(AlertRow).where(AlertRow.state != "recovered"))
        standing = {alert.key: alert for alert in alerts}
        for key, alert in standing.items():
            if key in present:
                alert.seen_at, alert.sentence = now(), present[key].sentence[:SENTENCE_CHARACTERS]
                continue
            if held and key.startswith(CLOCK_BOUND):
                continue
            alert.state, alert.recovered_at = "recovered", now()
            _post(session, alert, "recovered", receivers)
        for key, condition in present.items():
            if key in standing or (held and key.startswith(CLOCK_BOUND)):
                continue
            alert = AlertRow(key=key, severity=condition.severity, sentence=condition.sentence[:SENTENCE_CHARACTERS])
            alert.state = "opened" if receivers else "open"
            session.add(alert)
            session.flush()
            _post(session, alert, "opened", receivers)


def _post(session: Session, alert: AlertRow, event: str, receivers: Sequence[str]) -> None:
    for receiver in receivers:
        session.add(AlertMessageRow(alert_id=alert.id, event=event, receiver=receiver, try_at=now()))


def deliver(catalogue: Catalogue, site: str, senders: dict[str, Send]) -> list[str]:
    """Send what waits, oldest first; return a sentence for each message that could not be sent.

    A receiver that fails is left alone for the rest of this call, so that its messages stay in order. No transaction is
    open while a message is on its way; another watch, such as a timer's beside that of `nightread up`, leaves it alone.

    Args:
        catalogue: where the messages wait.
        site: name of the site.
        senders: how to send, by the receiver's name; a receiver that is no longer configured is given up.
    """
    failures, silent = [], set()
    for number, message, receiver in _waiting(catalogue, site):
        if receiver in silent:
            continue
        if not _claim(catalogue, number):
            silent.add(receiver)
            continue
        reason = _try(senders.get(receiver), message)
        _note(catalogue, number, reason, receiver in senders)
        if reason:
            silent.add(receiver)
            failures.append(f"{receiver} did not take an alert: {reason}")
    return failures


def _claim(catalogue: Catalogue, number: int) -> bool:
    """Whether a message is ours to send now: nobody else sends it for as long as sending may take."""
    due = or_(AlertMessageRow.try_at <= now(), AlertMessageRow.try_at > now() + LONGEST_PAUSE)  # as `_is_due`
    ours = update(AlertMessageRow).where(AlertMessageRow.id == number, AlertMessageRow.state == "pending", due)
    with catalogue.session() as session:
        claimed = session.scalars(ours.values(try_at=now() + SENDING).returning(AlertMessageRow.id)).all()
    return bool(claimed)


def _try(send: Send | None, message: Message) -> str:
    """Return "" if the message was sent, else the reason, without addresses."""
    if send is None:
        return "no such receiver is configured"
    try:
        send(message)
    except Exception as error:  # whatever a receiver does, the watch goes on
        number = getattr(error, "code", None) or getattr(error, "smtp_code", None) or getattr(error, "errno", None)
        return f"{type(error).__name__}{f' {number}' if number else ''}"
    return ""


def _waiting(catalogue: Catalogue, site: str) -> list[tuple[int, Message, str]]:
    query = (
        select(AlertMessageRow, AlertRow)
        .join(AlertRow, AlertRow.id == AlertMessageRow.alert_id)
        .where(AlertMessageRow.state == "pending")
        .order_by(AlertMessageRow.id)
    )
    with catalogue.reading() as session:
        rows = session.execute(query).all()
    blocked = {row.receiver for row, _ in rows if not _is_due(row.try_at)}
    return [
        (row.id, _message(site, row.event, alert), row.receiver) for row, alert in rows if row.receiver not in blocked
    ]


def _is_due(try_at: datetime) -> bool:
    """Whether a try is due; one that is further away than the longest pause was set before the clock went back."""
    wait = try_at - now()
    return wait <= timedelta(0) or wait > LONGEST_PAUSE


def _message(site: str, event: str, alert: AlertRow) -> Message:
    at = alert.recovered_at if event == "recovered" else alert.opened_at
    moment = (at or now()).isoformat(sep=" ", timespec="minutes")
    return Message(site, event, alert.key, alert.severity, alert.sentence, moment)


def _note(catalogue: Catalogue, number: int, reason: str, configured: bool) -> None:
    with catalogue.session() as session:
        row = session.get_one(AlertMessageRow, number)
        alert = session.get_one(AlertRow, row.alert_id)
        row.attempts, row.reason = row.attempts + 1, reason[:200]
        row.state = "sent" if not reason else "pending" if configured and not _is_old(row, alert) else "given up"
        if row.state == "pending":
            row.try_at = now() + min(FIRST_PAUSE * 2 ** min(row.attempts - 1, 10), LONGEST_PAUSE)
        session.flush()
        waiting = select(AlertMessageRow.id).where(
            AlertMessageRow.alert_id == alert.id,
            AlertMessageRow.event == "opened",
            AlertMessageRow.state == "pending",
        )
        if alert.state == "opened" and session.scalar(waiting.limit(1)) is None:
            alert.state = "open"


def _is_old(row: AlertMessageRow, alert: AlertRow) -> bool:
    since = alert.recovered_at if row.event == "recovered" else alert.opened_at
    return now() - (since or now()) > GIVE_UP


def list_alerts(catalogue: Catalogue, everything: bool = False) -> list[AlertRow]:
    """Return the alerts that have not recovered, or all of them; oldest first."""
    query = select(AlertRow).order_by(AlertRow.id)
    with catalogue.reading() as session:
        return list(session.scalars(query if everything else query.where(AlertRow.state != "recovered")))


def count_undelivered(catalogue: Catalogue) -> int:
    """Return how many messages wait, or were given up about something that is still wrong."""
    query = (
        select(AlertMessageRow.id)
        .join(AlertRow, AlertRow.id == AlertMessageRow.alert_id)
        .where(
            (AlertMessageRow.state == "pending")
            | ((AlertMessageRow.state == "given up") & (AlertRow.state != "recovered"))
        )
    )
    with catalogue.reading() as session:
        return len(session.scalars(query).all())
