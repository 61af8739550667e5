"""``labelport tokens``: what programs show to be let in as a user."""

from __future__ import annotations

import argparse

from labelport.catalog import tokens, users
from labelport.cli.options import Commands, add_command, add_group, open_catalog, positive
from labelport.cli.output import print_json, print_table, say
from labelport.cli.shapes import of_token

_DAY_SECONDS = 86_400


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    group = add_group(commands, "tokens", "What programs show to be let in as a user.")
    add = add_command(
        group, "add", _add, "Create a token. Its secret is shown now, and never again."
    )
    add.add_argument("user", help="e-mail address or id")
    add.add_argument("--name", required=True, help="what it is for")
    add.add_argument(
        "--days", type=positive, metavar="N", help="how long it is good (default: until revoked)"
    )
    show_all = add_command(group, "list", _list, "List a user's tokens and sessions.")
    show_all.add_argument("user", help="e-mail address or id")
    revoke = add_command(group, "revoke", _revoke, "Forget a token, which then lets nobody in.")
    revoke.add_argument("token", type=positive, help="id")


def _add(options: argparse.Namespace) -> int:
    with open_catalog(options) as catalog, catalog.begin() as connection:
        user = users.get(connection, options.user)
        token, secret = tokens.create(
            connection,
            user.id,
            name=options.name,
            seconds=options.days * _DAY_SECONDS if options.days else None,
        )
    if options.json:
        print_json(of_token(token) | {"secret": secret})
    else:
        say(f"token {token.id} of {user.email}; its secret is not kept, save it now:")
        say(secret)
    return 0


def _list(options: argparse.Namespace) -> int:
    with open_catalog(options) as catalog, catalog.read() as connection:
        user = users.get(connection, options.user)
        found = tokens.list_of(connection, user.id)
    if options.json:
        print_json([of_token(token) for token in found])
    else:
        print_table(
            ["id", "name", "kind", "created", "expires", "last used"],
            [(t.id, t.name, t.kind, t.created_at, t.expires_at, t.last_used_at) for t in found],
        )
    return 0


def _revoke(options: argparse.Namespace) -> int:
    with open_catalog(options) as catalog, catalog.begin() as connection:
        tokens.revoke(connection, options.token)
    if options.json:
        print_json({"revoked": options.token})
    else:
        say(f"token {options.token} is revoked")
    return 0
