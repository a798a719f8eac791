"""A service that needs credentials, with people who open its page in a browser."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from browsers import ContextFactory
from callers import new_key, new_user
from conftest import Service
from playwright.sync_api import BrowserContext, Page

from api.access.principals import Principal

# A browser tells each answer of 4xx as an error, also where the page says what to do.
_TOLD = "Failed to load resource"


@dataclass(frozen=True)
class Member:
    """Somebody with a key of their own."""

    user: Principal
    key: str


@dataclass(frozen=True)
class Desk:
    """The service, an admin, and somebody without a role."""

    service: Service
    grace: Member
    ada: Member

    def client(self, member: Member) -> httpx.Client:
        """A client that asks as `member`."""
        return self.service.client(**{"X-API-Key": member.key})

    def post(self, member: Member, path: str, **body: Any) -> Any:
        """What a POST of `member` is answered."""
        with self.client(member) as http:
            answer = http.post(path, json=body)
            assert answer.is_success, answer.text
            return answer.json()


def desk_of(service: Service) -> Desk:
    """Let Grace and Ada in. Before a browser starts: with it, no event loop can run."""
    people = (new_user(service, "Grace Example", is_admin=True), new_user(service, "Ada Example"))
    grace, ada = (Member(user, new_key(service, user)) for user in people)
    return Desk(service, grace, ada)


@contextmanager
def seated(
    open_context: ContextFactory, desk: Desk, who: Member | dict[str, str], **options: Any
) -> Iterator[BrowserContext]:
    """A browser whose tabs are signed in: with the key of a member, or with other credentials."""
    credentials = {"apiKey": who.key} if isinstance(who, Member) else who
    stored = json.dumps(json.dumps(credentials))
    script = f"if (origin !== 'null') sessionStorage.setItem('archwright.credentials', {stored})"
    with ExitStack() as stack:
        context = stack.enter_context(
            open_context(base_url=desk.service.url, allowed=(_TOLD,), **options)
        )
        context.add_init_script(script)
        yield context


def opened(context: BrowserContext, path: str) -> Page:
    """A new tab at a path of the page, such as `/texts`."""
    page = context.new_page()
    page.goto(f"/#{path}")
    return page
