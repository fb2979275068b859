"""Who may do what: one user, "default", with a password or without.

Owns AUTH's outcome and its delay after failures; hashing is passwords.py's.

A1  with a password set, a new session may run nothing but HELLO, AUTH, QUIT and RESET until it
    gave it; sessions that were logged in stay so when the password changes.
A2  a wrong name costs the same as a wrong password, and each further failure of a session costs it
    more time.

Threading: the thread that owns the node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from marram.commands.spec import CommandError
from marram.env.api import Env
from marram.node.deferred import Deferred
from marram.node.loop import Loop
from marram.node.passwords import Checker
from marram.node.session import Session
from marram.node.settings import Settings
from marram.protocol.replies import ErrorReply

USER: Final = b"default"
WRONG: Final = "WRONGPASS invalid username-password pair or user is disabled."

_FIRST_DELAY_S: Final = 0.1  # doubles with every failure of a session
_MAX_DELAY_S: Final = 3.0

Settle = Callable[[Deferred, Any], None]


class Logins:
    """Checks logins for the node."""

    def __init__(self, settings: Settings, env: Env, loop: Loop, settle: Settle) -> None:
        self._settings = settings
        self._loop = loop
        self._settle = settle
        self._checker = Checker(env, loop)

    @property
    def required(self) -> bool:
        """Whether new sessions have to log in."""
        return bool(self._settings.password_hash)

    def accept(self, session: Session) -> None:
        """Let a session in."""
        session.authenticated = True
        session.failed_logins = 0
        session.update()
        if session.on_authenticated is not None:
            session.on_authenticated()

    def check(
        self, session: Session, user: bytes, password: bytes, answer: Callable[[], Any]
    ) -> Any:
        """answer() once name and password are found right, else an error; mostly deferred.

        Raises CommandError where no password is set and the user is another.
        """
        kept = self._settings.password_hash
        if not kept:
            if user != USER:
                raise CommandError(WRONG)
            self.accept(session)
            return answer()
        deferred = Deferred()

        def checked(right: bool) -> None:
            if right and user == USER:
                self.accept(session)
                self._settle(deferred, answer())
                return
            delay_s = min(_FIRST_DELAY_S * 2**session.failed_logins, _MAX_DELAY_S)
            session.failed_logins = min(session.failed_logins + 1, 16)
            self._loop.call_later(delay_s, lambda: self._settle(deferred, ErrorReply(WRONG)))

        self._checker.check(password, kept, checked)
        return deferred
